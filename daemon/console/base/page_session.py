"""One open page, who looks at it, and doing what they ask for."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import quote

import structlog
from nicegui import ui
from starlette.requests import HTTPConnection

from daemon.access.accounts import Operators, Person
from daemon.access.sign_in import COOKIE
from daemon.console.base.cache import TtlCache
from daemon.data.review import BatchReview
from daemon.runtime.context import TargetContext
from daemon.settings.load import Settings
from daemon.views.data_summary import TargetData
from daemon.views.status import Health, status
from extractors.values import LearndError
from registry.store.database import StoreUnavailable
from registry.store.store import Store

log = structlog.get_logger()
T = TypeVar("T")
CONSOLE_PATH = "/console"
SIGN_IN = "/sign-in"
DATA_SECONDS = 60.0
"""For so long, pages share what was read of a target's data."""
STATUS_SECONDS = 0.9
BUSY = "The store cannot be read or written right now. Nothing was changed; try again."


class SignedOut(LearndError):
    """Nobody is signed in any more on a page that asks for something."""


@dataclass(frozen=True)
class ConsoleContext:
    """What the pages work with: the same as the API and the command line."""

    settings: Settings
    store: Store
    health: Health
    operators: Operators
    clock: Callable[[], datetime]

    @property
    def desk(self) -> BatchReview:
        """Where batches are read and decided."""
        return BatchReview(self.settings, self.store, self.clock)

    @cached_property
    def data(self) -> TtlCache[TargetData]:
        """A target's data, by its key."""
        return TtlCache(self._data, DATA_SECONDS)

    @cached_property
    def entries(self) -> TtlCache[list[dict[str, Any]]]:
        """How every target is."""
        return TtlCache(self._entries, STATUS_SECONDS)

    def _data(self, key: str) -> TargetData:
        return TargetData.read(
            TargetContext(self.settings, self.settings.target(key), self.store, self.clock)
        )

    def _entries(self, _: str) -> list[dict[str, Any]]:
        return [entry | self.health.of(entry["target"]) for entry in status(self.settings, self.store)]


@dataclass(frozen=True)
class PageSession:
    """A page that somebody has open.

    What came with the request that opened it says who they are, each time anew: a session that has
    ended since lets nothing through, though the page is still there.
    """

    console: ConsoleContext
    cookie: str | None
    headers: Mapping[str, str]
    peer: str
    began: datetime

    @classmethod
    def of(cls, console: ConsoleContext, request: HTTPConnection) -> "PageSession":
        """The visit that `request` begins."""
        peer = request.client.host if request.client else ""
        return cls(console, request.cookies.get(COOKIE), request.headers, peer, console.clock())

    @property
    def person(self) -> Person | None:
        """Who looks; None once nobody is signed in any more."""
        operators = self.console.operators
        named = operators.of_proxy(self.headers, self.peer)
        if named is not None and self.console.clock() < self.began + operators.lifetime:
            return named
        return operators.of_session(self.cookie)

    @property
    def may_decide(self) -> bool:
        """Whether what changes something should be offered."""
        person = self.person
        return person is not None and person.role == "operator"

    async def read(self, work: Callable[[], T]) -> T:
        """What `work` reads, without holding up the pages of others. Raises SignedOut, and what it does."""
        if self.person is None:
            redirect_to_sign_in()
            raise SignedOut("nobody is signed in any more")
        return await asyncio.to_thread(work)

    async def act(self, work: Callable[[str], T], *, said: str = "") -> T | None:
        """Have `work` do, under a person's name, what they asked for; None where it could not be done.

        What stands in the way is told them, and so is `said` when it is done.
        """
        person = self.person
        if person is None:
            redirect_to_sign_in()
            return None
        if person.role != "operator":
            notify(f"{person.name} is a viewer: only operators may do this", good=False)
            return None
        try:
            done = await asyncio.to_thread(work, person.name)
        except (LearndError, OSError, StoreUnavailable) as problem:
            notify_problem(problem)
            return None
        if said:
            notify(said)
        return done

    def every(self, seconds: float, refresh: Callable[[], Any]) -> ui.timer:
        """Call `refresh` while the page is open and its reader signed in."""

        async def again() -> None:
            try:
                outcome = refresh()
                if asyncio.iscoroutine(outcome):
                    await outcome
            except SignedOut:
                return
            except (LearndError, OSError, StoreUnavailable) as problem:
                # The next one may go well; nobody asked for this one.
                log.warning("a page could not be refreshed", problem=str(problem))

        return ui.timer(seconds, again)


def redirect_to_sign_in() -> None:
    """The session is over: sign in again, and come back here."""
    ui.run_javascript(
        f"location.href = '{CONSOLE_PATH}{SIGN_IN}?to=' + encodeURIComponent(location.pathname + location.search)"
    )


def notify_problem(problem: Exception) -> None:
    """Say what stood in the way of what was asked for."""
    if isinstance(problem, SignedOut):
        return
    if isinstance(problem, StoreUnavailable):
        # What the database says names tables and values.
        log.warning("the store is unavailable", problem=str(problem))
        notify(BUSY, good=False)
    elif isinstance(problem, LearndError | OSError):
        notify(str(problem), good=False)
    else:
        notify(f"A defect in learnd, please report it: {type(problem).__name__}: {problem}", good=False)


def notify(words: str, *, good: bool = True) -> None:
    """Say what happened; bad news stays until it is closed."""
    ui.notify(
        words,
        type="positive" if good else "negative",
        multi_line=len(words) > 80,
        close_button="Close" if not good else False,
        timeout=3000 if good else 0,
        position="bottom",
    )


def set_address(path: str, **query: str | None) -> None:
    """Have the address say where one is, so that a reload and a link lead back."""
    asked = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items() if value)
    ui.navigate.history.replace(f"{CONSOLE_PATH}{path}?{asked}" if asked else f"{CONSOLE_PATH}{path}")
