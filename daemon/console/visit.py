"""One open page: who looks at it, and doing what they ask for."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import quote

import structlog
from fastapi import Request
from fastapi.responses import RedirectResponse
from nicegui import ui

from daemon.approvals import Desk
from daemon.operators import Operators, Person
from daemon.settings import Settings
from daemon.sign_in import COOKIE
from daemon.status import Health
from extractors.values import LearndError
from registry.store.database import StoreUnavailable
from registry.store.store import Store

log = structlog.get_logger()
T = TypeVar("T")
MOUNTED = "/console"
SIGN_IN = "/sign-in"


@dataclass(frozen=True)
class Console:
    """What the pages work with: the same as the API and the command line."""

    settings: Settings
    store: Store
    health: Health
    operators: Operators
    clock: Callable[[], datetime]

    @property
    def desk(self) -> Desk:
        """Where batches are read and decided."""
        return Desk(self.settings, self.store, self.clock)


@dataclass(frozen=True)
class Visit:
    """A page that somebody has open.

    What came with the request that opened it says who they are, each time anew: a session that has
    ended since lets nothing through, though the page is still there.
    """

    console: Console
    cookie: str | None
    headers: Mapping[str, str]
    peer: str

    @classmethod
    def of(cls, console: Console, request: Request) -> "Visit":
        """The visit that `request` begins."""
        peer = request.client.host if request.client else ""
        return cls(console, request.cookies.get(COOKIE), request.headers, peer)

    @property
    def person(self) -> Person | None:
        """Who looks; None once nobody is signed in any more."""
        operators = self.console.operators
        return operators.of_proxy(self.headers, self.peer) or operators.of_session(self.cookie)

    @property
    def may_decide(self) -> bool:
        """Whether what changes something should be offered."""
        person = self.person
        return person is not None and person.role == "operator"

    async def read(self, work: Callable[[], T]) -> T:
        """What `work` reads, without holding up the pages of others. Raises what it does."""
        return await asyncio.to_thread(work)

    async def act(self, work: Callable[[str], T], *, said: str = "") -> T | None:
        """Have `work` do, under a person's name, what they asked for; None where it could not be done.

        What stands in the way is told them, and so is `said` when it is done.
        """
        person = self.person
        if person is None:
            leave()
            return None
        if person.role != "operator":
            tell(f"{person.name} is a viewer: only operators may do this", good=False)
            return None
        try:
            done = await asyncio.to_thread(work, person.name)
        except (LearndError, StoreUnavailable, OSError) as problem:
            tell(str(problem), good=False)
            return None
        if said:
            tell(said)
        return done

    def every(self, seconds: float, refresh: Callable[[], Any]) -> None:
        """Call `refresh` while the page is open and its reader signed in."""

        async def again() -> None:
            if self.person is None:
                leave()
                return
            try:
                outcome = refresh()
                if asyncio.iscoroutine(outcome):
                    await outcome
            except (LearndError, StoreUnavailable, OSError) as problem:
                log.warning("a page could not be refreshed", problem=str(problem))

        ui.timer(seconds, again)


def to_sign_in(request: Request) -> RedirectResponse:
    """To the sign-in, and from there back to what was asked for."""
    asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"{MOUNTED}{SIGN_IN}?to={quote(asked, safe='')}", 303)


def leave() -> None:
    """The session is over: sign in again."""
    ui.navigate.to(SIGN_IN)


def tell(words: str, *, good: bool = True) -> None:
    """Say what happened; bad news stays until it is closed."""
    ui.notify(
        words,
        type="positive" if good else "negative",
        multi_line=len(words) > 80,
        close_button="Close" if not good else False,
        timeout=3000 if good else 0,
        position="bottom",
    )
