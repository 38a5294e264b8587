"""Sends a request to a replica, and to the next one where it cannot answer: all HTTP from here to vLLM."""

import itertools
import logging
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp.connector import AddrInfoType

from daemon.gateway.apis.api import find_message
from daemon.gateway.limits import MAX_ANSWER_BYTES, BeyondLimits, write_json
from daemon.gateway.routes import ReplicaAddress, Route
from daemon.gateway.sse import parse_object
from extractors.errors import LearndError

log = logging.getLogger(__name__)

CONNECT_SECONDS = 3.0
KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 60_000}
"""How a replica's machine that is gone is noticed, after a minute: by questions that its kernel answers while
the model thinks. Seconds, their number, and milliseconds until what was sent has to be confirmed."""
REST_SECONDS = 5.0
"""How long a replica that could not answer is asked last."""
PASSED_OVER = frozenset({401, 403, 404, 502, 503, 504})
"""Statuses that are the replica's fault and not the request's. A restarted replica answers 404 until the
reconciler has loaded the adapter again; 401 means our key, never the agent's."""
ANSWERS = (range(200, 300), range(400, 600))
"""Statuses of an answer. A redirect is not followed, and what HTTP does not know cannot be passed on."""
NO_SUCH_ROUTE = frozenset({"not found", "file not found"})
"""What model servers say with a 404 for a route; for a model they name it."""


class NoReplica(LearndError):
    """No replica of the target could answer."""


class RouteMissing(LearndError):
    """A replica has no such route: it does not speak the API at all."""


@dataclass(frozen=True)
class ReplicaAnswer:
    """A replica's answer, of which nothing has gone to the client yet."""

    response: aiohttp.ClientResponse
    start: bytes
    """The whole body, or the first piece of a stream."""

    @property
    def is_stream(self) -> bool:
        return self.response.content_type == "text/event-stream"

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives.

        Raises aiohttp.ClientError where the replica breaks off, and BeyondLimits.
        """
        yield self.start
        size = len(self.start)
        async for piece in self.response.content.iter_any():
            size += len(piece)
            _check_size(size)
            yield piece


class Upstream:
    """Sends requests to the replicas, the least busy one first."""

    def __init__(self, session: aiohttp.ClientSession, clock: Callable[[], float] = time.monotonic) -> None:
        self._session = session
        self._clock = clock
        self._in_flight: Counter[str] = Counter()
        self._resting_until: dict[str, float] = {}
        self._turn = itertools.count()

    @asynccontextmanager
    async def answer(
        self, route: Route, path: str, request: Mapping[str, Any], headers: Mapping[str, str]
    ) -> AsyncIterator[ReplicaAnswer]:
        """Ask the replicas of `route` in turn, and yield the first answer.

        Leaving the block early (the client is gone) closes the connection, and vLLM stops
        generating. Raises NoReplica, RouteMissing (by each replica), BeyondLimits.
        """
        without_route = 0
        for replica in self._sort(route.replicas):
            self._in_flight[replica.url] += 1
            try:
                answer = await self._ask(
                    replica, path, {**request, "model": route.model_on(replica)}, headers
                )
                if answer is not None:
                    async with answer.response:
                        yield answer
                    return
            except RouteMissing:
                without_route += 1
            finally:
                self._in_flight[replica.url] -= 1
        if without_route and without_route == len(route.replicas):
            raise RouteMissing(f"the model server of {route.target} does not have {path}")
        raise NoReplica(f"no replica of {route.target} answers now; try again in a few seconds")

    def _sort(self, replicas: Iterable[ReplicaAddress]) -> list[ReplicaAddress]:
        """Return the replicas in the order to ask: rested before resting, idle before busy, then in turn."""
        turns = list(replicas)
        if turns:
            first = next(self._turn) % len(turns)
            turns = turns[first:] + turns[:first]
        return sorted(turns, key=lambda replica: (self._is_resting(replica), self._in_flight[replica.url]))

    async def _ask(
        self, replica: ReplicaAddress, path: str, request: Mapping[str, Any], headers: Mapping[str, str]
    ) -> ReplicaAnswer | None:
        """Return the replica's answer, or None where another replica should be asked."""
        authorization = (
            {"authorization": f"Bearer {replica.api_key.get_secret_value()}"} if replica.api_key else {}
        )
        try:
            response = await self._session.post(
                replica.url + path,
                data=write_json(request),
                headers={**headers, **authorization, "content-type": "application/json"},
                allow_redirects=False,
            )
            return await self._read_start(replica, response)
        except aiohttp.ClientError as broken:
            self._let_rest(replica, f"{type(broken).__name__}: {broken}")
            return None

    async def _read_start(
        self, replica: ReplicaAddress, response: aiohttp.ClientResponse
    ) -> ReplicaAnswer | None:
        """Wait for the first piece of the answer: until then another replica can still take over."""
        is_read = False
        try:
            if response.status == 404 and _lacks_route(await _read_whole(response)):
                raise RouteMissing(replica.name)
            if response.status in PASSED_OVER or not any(response.status in known for known in ANSWERS):
                self._let_rest(replica, f"HTTP {response.status}")
                return None
            is_stream = response.content_type == "text/event-stream"
            start = await (response.content.readany() if is_stream else _read_whole(response))
            is_read = True
            return ReplicaAnswer(response, start)
        finally:
            if not is_read:
                response.close()

    def _is_resting(self, replica: ReplicaAddress) -> bool:
        return self._resting_until.get(replica.url, 0.0) > self._clock()

    def _let_rest(self, replica: ReplicaAddress, why: str) -> None:
        if not self._is_resting(replica):
            log.warning("replica %s (%s) passed over: %s", replica.name, replica.url, why)
        self._resting_until[replica.url] = self._clock() + REST_SECONDS


def _lacks_route(body: bytes) -> bool:
    """Return whether a 404 is for the route, as web servers say it, and not for the model."""
    content = parse_object(body)
    message = find_message(content) if content else None
    return message is not None and message.casefold() in NO_SUCH_ROUTE


async def _read_whole(response: aiohttp.ClientResponse) -> bytes:
    """Return the body of an answer in one piece. Raises BeyondLimits before much more is read."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        _check_size(len(body))
    return bytes(body)


def _check_size(size: int) -> None:
    if size > MAX_ANSWER_BYTES:
        raise BeyondLimits(f"is larger than {MAX_ANSWER_BYTES} bytes")


def open_session() -> aiohttp.ClientSession:
    """Return a session for the replicas: any number of connections, no cookies.

    A model may think for as long as the agent waits: no deadline ends its silence.
    Replicas are asked not to compress. An answer in gzip or deflate is decompressed all the same.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, socket_factory=_open_socket),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"accept-encoding": "identity"},
    )


def _open_socket(address: AddrInfoType) -> socket.socket:
    """Return a socket that notices when the machine at its other end is gone."""
    family, kind, protocol, *_ = address
    opened = socket.socket(family, kind, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEP_ALIVE.items():
        # macOS does not have all of them.
        if hasattr(socket, option):
            opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return opened
