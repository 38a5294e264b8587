"""Bodies in and out over ASGI, and problems that an agent is told of."""

import json
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from extractors.errors import LearndError

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
JSON = {"content-type": "application/json"}
WINDOW_BITS = {
    "gzip": zlib.MAX_WBITS | 16,
    "x-gzip": zlib.MAX_WBITS | 16,
    "deflate": zlib.MAX_WBITS,
}
"""zlib's parameter for each `Content-Encoding` that is read (RFC 9110, section 8.4.1)."""


class ClientGone(LearndError):
    """The agent closed the connection before it had its answer."""


class ApiError(LearndError):
    """A request that is answered with an error; its API gives the error its form."""

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
        self.kind = kind
        """Its type, in the words of OpenAI's APIs."""
        self.code = code
        self.param = param
        self.headers = headers or {}


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """Read the request's whole body. Raises ApiError (413) past `limit` bytes, ClientGone."""
    too_large = _build_too_large(limit)
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


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Return the body without its `Content-Encoding`, gzip or deflate.

    Raises ApiError: 413 past `limit` bytes, 400 where the body is not what its encoding says, 415 for
    other encodings.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in WINDOW_BITS:
        raise ApiError(
            415,
            f"the content encoding `{encoding}` is not supported; use gzip, deflate or none",
            code="unsupported_content_encoding",
            headers={"accept-encoding": "gzip, deflate"},
        )
    # Deflate means zlib's format, but many clients send the bare stream.
    is_bare = name == "deflate" and not _has_zlib_header(body)
    stream = zlib.decompressobj(-zlib.MAX_WBITS if is_bare else WINDOW_BITS[name])
    try:
        content = stream.decompress(body, limit + 1)
    except zlib.error as broken:
        raise ApiError(400, f"the body is not valid {name}: {broken}") from broken
    if len(content) > limit:
        raise _build_too_large(limit)
    if not stream.eof:
        raise ApiError(400, f"the body is not valid {name}: it ends too early")
    if stream.unused_data:
        raise ApiError(400, f"the body goes on after the end of its {name} data")
    return content


def _has_zlib_header(body: bytes) -> bool:
    """Return True where the body begins as RFC 1950 says."""
    return len(body) >= 2 and body[0] & 0x0F == zlib.DEFLATED and int.from_bytes(body[:2]) % 31 == 0


def _build_too_large(limit: int) -> ApiError:
    return ApiError(413, f"the body is larger than {limit} bytes", code="body_too_large")


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
