"""Keeps the routes up to date: asks the daemon, which answers when something has changed.

    daemon ── GET /v1/gateway/routes, held back until something changed ──> table ──> requests
                                                                             └──> file (the last known)

A daemon that is down, hangs or refuses costs no request: the routes known last stay in force.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import aiohttp
from pydantic import ValidationError

from daemon.gateway.route_file import RouteFile, RoutesDamaged
from daemon.gateway.routes import RouteTable
from daemon.runtime.gateway_routes import ROUTES_PATH, GatewayRoutes
from extractors.errors import LearndError

log = logging.getLogger(__name__)

WAIT_SECONDS = 10
"""How long the daemon may hold its answer back where nothing changes."""
ANSWER_SECONDS = 5.0
"""How long it may take beyond that."""
CONNECT_SECONDS = 3.0
PAUSE_SECONDS = 0.1
"""Between two answers, so that a daemon that does not wait is not asked all the time."""
RETRY_SECONDS = 0.5
"""After a failure."""
FIRST_SECONDS = 2.0
"""How long a gateway that starts waits for news, before it serves what it knows."""
MAX_BYTES = 16 * 2**20
"""Size of an answer."""


class DaemonRefused(LearndError):
    """The daemon answered, and not with routes."""


@dataclass(frozen=True)
class DaemonAddress:
    """The daemon's address, and the token that opens its route for gateways."""

    url: str
    """Base URL without a slash at the end."""
    token: str | None = field(repr=False)


class RouteUpdates:
    """Brings what the daemon tells into the table of routes, and into the file."""

    def __init__(
        self, daemon: DaemonAddress, table: RouteTable, file: RouteFile, clock: Callable[[], datetime]
    ) -> None:
        """`clock` returns aware UTC."""
        self.table = table
        self._daemon = daemon
        self._file = file
        self._clock = clock
        self._tag: str | None = None
        self._heard = asyncio.Event()
        self._problem: str | None = None
        self._heard_at, self._heard_monotonic = clock(), time.monotonic()

    @property
    def silent_seconds(self) -> float:
        """Seconds for which the daemon has not been heard; 0 while it answers."""
        return time.monotonic() - self._heard_monotonic if self._problem is not None else 0.0

    def describe(self) -> str:
        """Return since when the daemon is silent, for health checks; why is in the log, not for strangers."""
        if self._problem is None:
            return "ok" if self._heard.is_set() else "not asked yet"
        return f"not heard since {self._heard_at:%Y-%m-%d %H:%M:%S} UTC"

    def load(self) -> None:
        """Go by the routes in the file, until the daemon answers."""
        try:
            known = self._file.read()
        except (RoutesDamaged, OSError) as unusable:
            log.error("the last known routes are not used, the daemon is asked anew: %s", unusable)
            return
        if known is not None:
            self.table.update(known)

    async def wait_for_first(self) -> None:
        """Wait until the daemon has answered, but not for long."""
        try:
            await asyncio.wait_for(self._heard.wait(), FIRST_SECONDS)
        except TimeoutError:
            log.warning("the daemon at %s has not answered yet", self._daemon.url)

    async def follow(self, session: aiohttp.ClientSession) -> None:
        """Ask the daemon again and again, until cancelled."""
        while True:
            try:
                told = await self._ask(session)
            except (aiohttp.ClientError, TimeoutError, DaemonRefused) as problem:
                self._note_silence(f"{type(problem).__name__}: {problem}")
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if told is not None:
                self.table.update(told)
                await asyncio.to_thread(self._remember, told)
            self._note_answer()
            await asyncio.sleep(PAUSE_SECONDS)

    async def _ask(self, session: aiohttp.ClientSession) -> GatewayRoutes | None:
        """Return the routes; None where they are the known ones still. Raises DaemonRefused."""
        headers = {"authorization": f"Bearer {self._daemon.token}"} if self._daemon.token else {}
        seconds = ANSWER_SECONDS
        if self._tag is not None:
            headers |= {"if-none-match": self._tag, "prefer": f"wait={WAIT_SECONDS}"}
            seconds += WAIT_SECONDS
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS)
        async with session.get(
            self._daemon.url + ROUTES_PATH, headers=headers, timeout=timeout, allow_redirects=False
        ) as response:
            if response.status == 304 and self._tag is not None:
                return None
            body = await _read_limited(response.content)
            if response.status != 200:
                raise DaemonRefused(f"HTTP {response.status}: {body[:200].decode('utf-8', 'replace')}")
        try:
            told = GatewayRoutes.model_validate_json(body)
        except ValidationError:
            raise DaemonRefused("its answer holds no routes; is it a daemon of this version?") from None
        tag = response.headers.get("etag")
        # It is sent back as it came, and what a header cannot carry would end the asking.
        self._tag = tag if tag is not None and tag.isascii() and tag.isprintable() else None
        return told

    def _remember(self, told: GatewayRoutes) -> None:
        try:
            self._file.write(told)
        except OSError as problem:
            log.error("the routes cannot be kept for the next start: %s", problem)

    def _note_answer(self) -> None:
        if self._problem is not None:
            log.info("the daemon at %s answers again", self._daemon.url)
        self._problem = None
        self._heard_at, self._heard_monotonic = self._clock(), time.monotonic()
        self._heard.set()

    def _note_silence(self, problem: str) -> None:
        """Log the first failure; from a daemon that is down, the tag may be of another store."""
        if self._problem is None:
            kept = "the last known routes stay in force" if self.table.ready else "no routes are known yet"
            log.warning("the daemon at %s does not tell the routes, %s: %s", self._daemon.url, kept, problem)
        self._problem = problem
        self._tag = None


async def _read_limited(content: aiohttp.StreamReader) -> bytes:
    """Return a body. Raises DaemonRefused before much more than `MAX_BYTES` are read."""
    body = bytearray()
    async for piece in content.iter_any():
        body += piece
        if len(body) > MAX_BYTES:
            raise DaemonRefused(f"its answer is larger than {MAX_BYTES} bytes")
    return bytes(body)
