"""Limits every request's body, and adds headers to every response that keep other sites from framing it."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]


class BodyLimit:
    """ASGI middleware that answers 413 to a body of more than `limit` bytes, and 411 to one without a length.

    FastAPI reads a body before it checks who sent it.
    """

    def __init__(self, app: App, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            # h11 and httptools ensure that no more comes than this header says.
            length = headers.get(b"content-length", b"0")
            if b"transfer-encoding" in headers:
                await _send_refusal(send, 411, "send the body with its Content-Length")
                return
            if int(length) > self._limit:
                await _send_refusal(send, 413, f"the body has more than {self._limit} bytes")
                return
        await self._app(scope, receive, send)


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


async def _send_refusal(send: Send, status: int, why: str) -> None:
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"detail": why}).encode()})
