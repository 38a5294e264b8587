"""A client that costs little itself: it sends a request that is ready, and takes the times of its answer."""

import asyncio
from dataclasses import dataclass
from time import perf_counter
from typing import cast
from urllib.parse import urlsplit

import httptools


@dataclass(frozen=True)
class CallTimes:
    """Times of one call, in seconds."""

    first: float
    """Until the first bytes of the answer's body."""
    whole: float
    """Until the answer's end."""


class Connection(asyncio.Protocol):
    """A connection that is kept, for one call after the other."""

    @classmethod
    async def open(cls, url: str) -> "Connection":
        """Connect to the server at `url`."""
        where = urlsplit(url)
        _, made = await asyncio.get_running_loop().create_connection(cls, where.hostname, where.port)
        return made

    async def call(self, request: bytes) -> CallTimes:
        """Send `request`, which is a whole one over HTTP. Raises ConnectionError for any answer but a 200."""
        self._first = 0.0
        self._parser = httptools.HttpResponseParser(self)
        self._ended: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        began = perf_counter()
        self._transport.write(request)
        ended = await self._ended
        return CallTimes(self._first - began, ended - began)

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.WriteTransport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """End a call that waits for its answer."""
        if (ended := getattr(self, "_ended", None)) and not ended.done():
            ended.set_exception(ConnectionError(f"the connection was lost: {exc}"))

    def data_received(self, data: bytes) -> None:
        """Read some of an answer."""
        self._parser.feed_data(data)

    def on_body(self, _body: bytes) -> None:
        """Take the time of the first piece."""
        self._first = self._first or perf_counter()

    def on_message_complete(self) -> None:
        """Take the time of the end."""
        status = self._parser.get_status_code()
        if status == 200:
            self._ended.set_result(perf_counter())
        else:
            self._ended.set_exception(ConnectionError(f"HTTP {status}"))


def build_post(url: str, path: str, token: str, body: bytes) -> bytes:
    """Return a POST of JSON, as it goes over the wire."""
    headers = {
        "host": urlsplit(url).netloc,
        "authorization": f"Bearer {token}",
        "content-type": "application/json",
        "content-length": str(len(body)),
    }
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode() + body


async def call_for(seconds: float, url: str, request: bytes) -> list[CallTimes]:
    """Call over one connection for some seconds, one call after the other."""
    connection = await Connection.open(url)
    times, until = [], perf_counter() + seconds
    while perf_counter() < until:
        times.append(await connection.call(request))
    connection.close()
    return times
