"""One call of an agent through the gateway: its request, its answer, and how it ended."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from daemon.gateway.apis import Api
from daemon.gateway.routes import Route

SESSION_HEADER = "x-learnd-session"
"""The conversation that a call belongs to; becomes `session.id`."""
VERSION_HEADER = "x-learnd-version"
"""In answers: the adapter version that answered, or `base`."""
SPAN_HEADER = "x-learnd-span-id"
"""In answers: the call's span in Phoenix, for feedback."""
BASE_VERSION = "base"
"""Stands for the adapter version where the base model answered without an adapter."""


@dataclass
class GatewayCall:
    """One call. It is filled in while it is answered; metrics and tracing read it when it is over."""

    api: Api
    route: Route
    request: Mapping[str, Any]
    """The body as the agent sent it."""
    request_memory: int
    """Bytes that `request` takes in memory, about."""
    headers: Mapping[str, str]
    """Header names in lower case."""
    started_ns: int = field(default_factory=time.time_ns)
    ended_ns: int = 0
    span_id: int | None = None
    """None where the call is not traced."""
    status: int = 0
    error: str | None = None
    """The reason why the agent got no whole answer, as far as the transport showed it."""
    answer: list[bytes] = field(default_factory=list)
    """The answer's body in one piece, or the events of a stream."""
    streamed: bool = False

    @property
    def version(self) -> str:
        return self.route.version or BASE_VERSION

    @property
    def seconds(self) -> float:
        return (self.ended_ns - self.started_ns) / 1e9
