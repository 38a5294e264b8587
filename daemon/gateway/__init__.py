"""The gateway for agents. It speaks OpenAI's and Anthropic's APIs, resolves aliases and traces each call.

    agent ── model `acme/routing` ──> app ── routes: which version? ──> upstream ──> a replica
                                       └── tracing ──> Phoenix (off the request's path)

It is a process of its own, so that a restart of the daemon costs no request.
"""

from daemon.gateway.app import build_app
from daemon.gateway.routes import ReplicaAddress, Route
from daemon.gateway.tracing import Tracing

__all__ = ["ReplicaAddress", "Route", "Tracing", "build_app"]
