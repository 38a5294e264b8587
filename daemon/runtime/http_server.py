"""The HTTP server of the daemon and of the gateway: uvicorn, with limits on what a client can hold.

uvicorn's fast parser has no limit for the head of a request and no deadline for a request that never ends,
and an application is only called once the head is complete. So the limits are part of the protocol:

phase of a connection        deadline
waiting for or reading a head  `head_seconds`, with at most `max_head_bytes`
reading a body                 `body_seconds`, and again while it comes at `min_body_rate`
answering                      none while the application is silent; `write_seconds` while the client reads
                               nothing of what was sent
web socket                     none of these; uvicorn's pings find peers that are gone
"""

import asyncio
import resource
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from time import monotonic
from typing import Any

import httptools
import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = structlog.get_logger()
ACCEPTED_AT_ONCE = 128
"""Most connections that wait to be accepted. The event loop accepts as many before it looks at any."""
UPGRADE_HEADERS = frozenset({b"upgrade", b"http2-settings"})
REFUSALS = {
    408: b"Request Timeout",
    431: b"Request Header Fields Too Large",
    503: b"Service Unavailable",
}


@dataclass(frozen=True)
class HttpLimits:
    """The most that clients of a server can hold."""

    max_head_bytes: int = 32 * 2**10
    """Size of a request's line and headers."""
    head_seconds: float = 10.0
    """Time from the first byte of a request (or from the connection on) until its head is complete."""
    body_seconds: float = 30.0
    """Time after which a body must be complete, or must have come at `min_body_rate` since the last look."""
    min_body_rate: float = 4096.0
    """Bytes a second."""
    write_seconds: float = 60.0
    """Time in which a client must read some of a response that does not fit in the buffers."""
    keep_alive_seconds: int = 15
    """Time that a connection is kept for the next request."""
    max_connections: int = 1000
    """Connections at the same time, as far as the process may open files for them."""
    files_per_connection: int = 2
    """Share of the process's files that is kept for each connection, its own included."""

    def count_allowed_connections(self) -> int:
        """Return the number of connections that this process may hold."""
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if descriptors == resource.RLIM_INFINITY:
            return self.max_connections
        return max(1, min(self.max_connections, descriptors // self.files_per_connection))


class LimitedConfig(uvicorn.Config):
    """uvicorn's configuration, with the limits of its connections."""

    def __init__(self, app: Any, limits: HttpLimits, **options: Any) -> None:
        self.limits = limits
        self.allowed_connections = limits.count_allowed_connections()
        super().__init__(
            app,
            http=LimitedProtocol,
            timeout_keep_alive=limits.keep_alive_seconds,
            backlog=max(1, min(ACCEPTED_AT_ONCE, self.allowed_connections // 2)),
            log_config=None,
            access_log=False,
            # The settings say which proxy to trust, and `daemon.access.accounts` who is asking.
            proxy_headers=False,
            **options,
        )


def build_server(app: Any, *, grace_seconds: int, websockets: bool, limits: HttpLimits) -> uvicorn.Server:
    """Build a server for the ASGI application `app`; run it with the sockets on which it listens.

    Requests in flight have `grace_seconds` when it is stopped.
    """
    return uvicorn.Server(
        LimitedConfig(
            app, limits, ws="auto" if websockets else "none", timeout_graceful_shutdown=grace_seconds
        )
    )


class StoppedParser(httptools.HttpRequestParser):
    """A parser that keeps what comes after a request to change the protocol, where it stops."""

    rest = b""

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]
        """Parse some of a request. Raises HttpParserError, and HttpParserUpgrade where it stops."""
        try:
            super().feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.rest = data[upgrade.args[0] :]
            raise


class Phase(Enum):
    """The part of a request that a connection reads."""

    HEAD = auto()
    BODY = auto()
    NONE = auto()


class LimitedProtocol(HttpToolsProtocol):
    """A connection of a client, within the limits."""

    config: LimitedConfig
    parser: StoppedParser

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the deadline of the first head, and make room for this connection."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._parse_anew()
        self._limits = self.config.limits
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._idle_since = monotonic()
        self._head_is_too_long = False
        self._body_bytes = 0
        self._keeps_alive = False
        self._begin_head()
        if len(self.connections) > self.config.allowed_connections and not self._close_longest_idle():
            self._refuse(503)

    @property
    def is_idle(self) -> bool:
        """True while no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        """Read some of a request, and refuse it once its head is too long."""
        if self.transport.is_closing():
            return
        if self._phase is Phase.NONE and self.is_idle:
            self._begin_head()
        if self._phase is Phase.HEAD:
            self._head_bytes += len(data)
        super().data_received(data)
        # A head that is long and complete is refused in `on_headers_complete`.
        if self._phase is Phase.HEAD and self._head_bytes > self._limits.max_head_bytes:
            self._refuse(431)

    def on_message_begin(self) -> None:
        """Count the head from here: what came before, of the same piece, may belong to another request."""
        super().on_message_begin()
        self._phase, self._head_bytes = Phase.HEAD, 1

    def on_headers_complete(self) -> None:
        """Begin to read the body, if the head is not too long."""
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self._limits.max_head_bytes:
            self._head_is_too_long = True
            raise ValueError("the head is too long")  # The parser stops, and asks for a refusal.
        self._ignores_upgrade = (
            self.parser.should_upgrade()
            and not self._should_upgrade()
            and self.parser.get_method() != b"CONNECT"
        )
        if self._ignores_upgrade:
            return
        self._phase, self._body_bytes = Phase.BODY, 0
        self._wait(self._limits.body_seconds, self._check_body)
        if self.parser.get_http_version() == "1.0":
            self.expect_100_continue = False  # RFC 9110, section 10.1.1.
        before = self.cycle
        super().on_headers_complete()
        if self.expect_100_continue and self.cycle is not before:
            # A client that is refused need not send its body, and what it sends next must not be read as one.
            self._keeps_alive, self.cycle.keep_alive = self.cycle.keep_alive, False

    def on_body(self, body: bytes) -> None:
        """Count the body."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the deadline: an answer may take as long as it needs."""
        if self._ignores_upgrade:
            return
        self._phase = Phase.NONE
        self._stop_waiting()
        if self._keeps_alive and not self.cycle.response_started:
            self.cycle.keep_alive = True
        self._keeps_alive = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Begin the deadline of a next request's head that came in part."""
        super().on_response_complete()
        self._idle_since = monotonic()
        if self.transport.is_closing():
            self._begin_writing_deadline()
        elif self._phase is Phase.HEAD and self._reading is None:
            self._wait(self._limits.head_seconds, self._end_head)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that was kept for nothing."""
        super().timeout_keep_alive_handler()
        self._begin_writing_deadline()

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser cannot read."""
        if self._head_is_too_long:
            self._refuse(431)
        elif self.is_idle:
            super().send_400_response(msg)
            self._begin_writing_deadline()
        else:
            # A response has begun, and another must not stand in the middle of it.
            self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Read a request as if it had not asked for another protocol (RFC 9110, section 7.8, allows that).

        Java's client asks for HTTP/2 with its first request. uvicorn would lose the body.
        """
        if not self._ignores_upgrade:
            super()._unsupported_upgrade_warning()
            return
        lines = [
            b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        ]
        lines += [b"%s: %s" % header for header in _list_plain_headers(self.headers)]
        request = b"\r\n".join([*lines, b"", b""]) + self.parser.rest
        self._parse_anew()
        super().data_received(request)

    def _parse_anew(self) -> None:
        self.parser = StoppedParser(self)
        # As uvicorn does: a client may send something after a request that closes the connection.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._ignores_upgrade = False

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over to the protocol of web sockets."""
        self._stop_waiting()
        super().handle_websocket_upgrade()

    def pause_writing(self) -> None:
        """Begin the deadline of a client that does not read."""
        super().pause_writing()
        self._begin_writing_deadline()

    def _begin_writing_deadline(self) -> None:
        """Cut the connection unless the client reads in time."""
        if self._writing is None and self.transport.get_write_buffer_size():
            self._writing = self.loop.call_later(self._limits.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """End the deadline of a client that reads again."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._stop_writing_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """End every deadline."""
        self._stop_waiting()
        self._stop_writing_deadline()
        super().connection_lost(exc)

    def _begin_head(self) -> None:
        self._phase, self._head_bytes = Phase.HEAD, 0
        self._wait(self._limits.head_seconds, self._end_head)

    def _end_head(self) -> None:
        self._reading = None
        if self._head_bytes:
            self._refuse(408)
        else:
            self.transport.close()

    def _check_body(self) -> None:
        """Wait on for a body that comes fast enough, or that we are slow to read; cut any other."""
        self._reading = None
        answered = self.cycle is not None and self.cycle.response_complete
        enough = self._body_bytes >= self._limits.min_body_rate * self._limits.body_seconds
        if not answered and (enough or self.flow.read_paused):
            self._body_bytes = 0
            self._wait(self._limits.body_seconds, self._check_body)
        elif self.cycle is None or self.cycle.response_started:
            self.transport.close()
        else:
            self._refuse(408)

    def _close_longest_idle(self) -> bool:
        """Close the connection that has been idle for longest; False where every one is at work."""
        idle = [
            other
            for other in self.connections
            if isinstance(other, LimitedProtocol) and other is not self and other.is_idle
        ]
        if not idle:
            return False
        longest = min(idle, key=lambda other: other._idle_since)
        self.connections.discard(longest)
        longest.transport.abort()
        return True

    def _refuse(self, status: int) -> None:
        """Answer with a status and nothing else, and close the connection."""
        self._stop_waiting()
        if not self.is_idle and (self.cycle.response_started or self.pipeline):
            # Nothing may stand in the middle of another response.
            self.transport.close()
            return
        log.info("request refused", status=status, peer=self.client[0] if self.client else "")
        reason = REFUSALS[status]
        head = b"HTTP/1.1 %d %s\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % (status, reason)
        self.transport.write(head)
        self.transport.close()
        self._begin_writing_deadline()

    def _wait(self, seconds: float, end: Callable[[], None]) -> None:
        self._stop_waiting()
        self._reading = self.loop.call_later(seconds, end)

    def _stop_waiting(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _stop_writing_deadline(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None


def _list_plain_headers(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the headers without those that ask for another protocol."""
    for name, value in headers:
        if name == b"connection":
            kept = [each for each in value.split(b",") if each.strip().lower() not in UPGRADE_HEADERS]
            yield name, b",".join(kept)
        elif name not in UPGRADE_HEADERS:
            yield name, value
