"""The gateway for agents: OpenAI-compatible, resolves a target's alias, traces each call into Phoenix.

    agent ── model `acme/routing` ──> app ── routes: which version? ──> upstream ──> a replica
                                       └── tracing ──> Phoenix (off the request's path)

A process of its own, so that the daemon restarts without costing a request.
"""

from daemon.gateway.app import build_app
from daemon.gateway.routes import ReplicaAddress, Route
from daemon.gateway.tracing import Tracing

__all__ = ["ReplicaAddress", "Route", "Tracing", "build_app"]
