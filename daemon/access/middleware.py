"""What holds for every request and every answer: bounded bodies, and pages that nobody else may frame."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]


class BodyLimit:
    """ASGI middleware: answers 413 to a body of more than `most` bytes, and 411 where its length is not said.

    FastAPI reads a body before it asks who sent it.
    """

    def __init__(self, app: App, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            # h11 and httptools see to it that no more comes than this says.
            length = headers.get(b"content-length", b"0")
            if b"transfer-encoding" in headers:
                await _send_refusal(send, 411, "send the body with its Content-Length")
                return
            if int(length) > self._most:
                await _send_refusal(send, 413, f"the body has more than {self._most} bytes")
                return
        await self._app(scope, receive, send)


class SecurityHeaders:
    """ASGI middleware: no other site may show our pages in a frame, and no answer is taken for another type.

    As OWASP's HTTP headers cheat sheet asks for. A policy on scripts would have to allow evaluation, which
    the console's templates need; what comes from telemetry is never markup there.
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
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self.HEADERS]
            await send(message)

        await self._app(scope, receive, guarded)


async def _send_refusal(send: Send, status: int, why: str) -> None:
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"detail": why}).encode()})
