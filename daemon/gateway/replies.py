"""Bodies in and out over ASGI, and errors in the form of OpenAI's API."""

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from extractors.errors import LearndError

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
JSON = {"content-type": "application/json"}


class ClientGone(LearndError):
    """The agent closed the connection before it had its answer."""


class ApiError(LearndError):
    """A request that is answered with an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        self.body = build_error_body(message, kind=kind, code=code, param=param)


def build_error_body(
    message: str, *, kind: str, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """Return an error in the form of OpenAI's API."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """Read the request's whole body. Raises ApiError (413) past `limit` bytes, ClientGone."""
    too_large = ApiError(413, f"the body is larger than {limit} bytes", code="body_too_large")
    announced = find_header(scope, b"content-length")
    if announced.isdecimal() and int(announced) > limit:
        raise too_large
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("the agent left while it sent its request")
        body += message.get("body", b"")
        if len(body) > limit:
            raise too_large
        if not message.get("more_body", False):
            return bytes(body)


async def send_start(send: Send, status: int, headers: Mapping[str, str]) -> None:
    raw = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})


async def send_piece(send: Send, body: bytes, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def send_whole(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    await send_start(send, status, {**headers, "content-length": str(len(body))})
    await send_piece(send, body, more=False)


async def send_json(
    send: Send, content: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> None:
    await send_whole(send, status, json.dumps(content).encode(), {**JSON, **(headers or {})})


def find_header(scope: Scope, name: bytes) -> str:
    """Return the request's first header of that (lower-case) name, or an empty string."""
    return next((value.decode("utf-8", "replace") for key, value in scope["headers"] if key == name), "")


def read_headers(scope: Scope) -> dict[str, str]:
    """Return the headers by lower-case name; a repeated header has its last value."""
    return {key.decode("latin-1"): value.decode("utf-8", "replace") for key, value in scope["headers"]}
