"""What middleware of ours shares, and headers on every response that keep other sites from framing it."""

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]


class SecurityHeaders:
    """ASGI middleware: no other site may show our pages in a frame, and no response is read as another type.

    Follows OWASP's HTTP headers cheat sheet. A policy on scripts would have to allow evaluation, which the
    console's templates need; text from telemetry is never markup there.
    """

    HEADERS = (
        (
            b"content-security-policy",
            b"frame-ancestors 'none'; base-uri 'self'; form-action 'self'; object-src 'none'",
        ),
        (b"x-frame-options", b"DENY"),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"same-origin"),
    )

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self.HEADERS]
            await send(message)

        await self._app(scope, receive, send_guarded)


async def send_refusal(
    scope: Any,
    receive: Receive,
    send: Send,
    status: int,
    why: str,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Answer a request with a status and `why` as JSON, and refuse a web socket; its body is not read."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 4000 + status})
        return
    body = json.dumps({"detail": why}).encode()
    known = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    encoded = [(name.lower().encode(), value.encode("latin-1")) for name, value in known.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
