"""One open page: who is looking at it, and reading and acting in their name."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import quote

import structlog
from nicegui import ui
from starlette.requests import HTTPConnection

from daemon.access.accounts import Operators, Person
from daemon.access.sign_in import COOKIE
from daemon.runtime.paths import hide_folders
from extractors.errors import LearndError
from registry.store.database import StoreUnavailable

log = structlog.get_logger()
T = TypeVar("T")
CONSOLE_PATH = "/console"
SIGN_IN = "/sign-in"
BUSY = "The store cannot be read or written right now. Nothing was changed; try again."


class SignedOut(LearndError):
    """Nobody is signed in any more on a page that asks for something."""


@dataclass(frozen=True)
class PageSession:
    """A page that somebody has open.

    The request that opened it identifies the person, and is checked each time: once their session has
    ended nothing is let through, although the page is still open.
    """

    operators: Operators
    clock: Callable[[], datetime]
    """Aware UTC."""
    cookie: str | None
    headers: Mapping[str, str]
    peer: str
    """The address that the request came from."""
    began: datetime

    @classmethod
    def from_request(
        cls, operators: Operators, clock: Callable[[], datetime], request: HTTPConnection
    ) -> "PageSession":
        """Return the session of the page that `request` opens."""
        peer = request.client.host if request.client else ""
        return cls(operators, clock, request.cookies.get(COOKIE), request.headers, peer, clock())

    @property
    def person(self) -> Person | None:
        """The person who is signed in; None once nobody is."""
        named = self.operators.find_by_proxy(self.headers, self.peer)
        if named is not None and self.clock() < self.began + self.operators.lifetime:
            return named
        return self.operators.find_by_session(self.cookie)

    @property
    def may_decide(self) -> bool:
        """True for operators: only they are offered what changes something."""
        person = self.person
        return person is not None and person.role == "operator"

    async def read(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, from a thread, so that other people's pages go on.

        Raises SignedOut, and what `work` raises.
        """
        if self.person is None:
            redirect_to_sign_in()
            raise SignedOut("nobody is signed in any more")
        return await asyncio.to_thread(work)

    async def act(self, work: Callable[[str], T], *, success: str = "") -> T | None:
        """Call `work` with the name of the person, from a thread, and return what it returns.

        None where it could not be done; the person is told why. `success` is shown when it is done.
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
        if success:
            notify(success)
        return done

    def refresh_every(self, seconds: float, refresh: Callable[[], Any]) -> ui.timer:
        """Call `refresh` now and every `seconds`, while the page is open and somebody is signed in."""

        async def refresh_once() -> None:
            try:
                outcome = refresh()
                if asyncio.iscoroutine(outcome):
                    await outcome
            except SignedOut:
                return
            except (LearndError, OSError, StoreUnavailable) as problem:
                # The next one may go well; nobody asked for this one.
                log.warning("a page could not be refreshed", problem=str(problem))

        return ui.timer(seconds, refresh_once)


def redirect_to_sign_in() -> None:
    """Send the browser to the sign-in page, which leads back to this page."""
    ui.run_javascript(
        f"location.href = '{CONSOLE_PATH}{SIGN_IN}?to='"
        " + encodeURIComponent(location.pathname + location.search)"
    )


def notify_problem(problem: Exception) -> None:
    """Tell the person why what they asked for was not done."""
    if isinstance(problem, SignedOut):
        return
    if isinstance(problem, StoreUnavailable):
        # The database's own words name tables and values.
        log.warning("the store is unavailable", problem=str(problem))
        notify(BUSY, good=False)
    elif isinstance(problem, LearndError | OSError):
        words = hide_folders(str(problem))
        if words != str(problem):
            log.warning("an act was refused", problem=str(problem))
        notify(words, good=False)
    else:
        notify(f"A defect in learnd, please report it: {type(problem).__name__}: {problem}", good=False)


def notify(words: str, *, good: bool = True) -> None:
    """Show a message at the bottom of the page; bad news stays until it is closed."""
    ui.notify(
        words,
        type="positive" if good else "negative",
        multi_line=len(words) > 80,
        close_button="Close" if not good else False,
        timeout=3000 if good else 0,
        position="bottom",
    )


def set_address(path: str, **query: str | None) -> None:
    """Show this address in the browser, so that a reload or a shared link leads back to this view."""
    asked = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items() if value)
    ui.navigate.history.replace(f"{CONSOLE_PATH}{path}?{asked}" if asked else f"{CONSOLE_PATH}{path}")
