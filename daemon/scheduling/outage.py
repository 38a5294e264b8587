"""Remembers that Phoenix does not answer: one job at a time finds out, and the others do not wait for it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from extractors.errors import LearndError
from extractors.phoenix.http import PhoenixError, PhoenixUnreachable

FIRST_PAUSE = 10.0
"""Seconds without a further try after the first failure; twice as many after each further one."""
LONGEST_PAUSE = 300.0
ASKING_PAUSE = 5.0
"""Seconds that jobs wait while another one finds out whether Phoenix answers again."""


class PhoenixAway(LearndError):
    """Phoenix did not answer another job a moment ago; nothing was sent now."""

    def __init__(self, problem: str, seconds: float) -> None:
        super().__init__(problem)
        self.seconds = seconds
        """After which time it is worth another try."""


class Outage:
    """Whether Phoenix is away. Threads share it."""

    def __init__(self, ask: Callable[[], object], clock: Callable[[], float] = time.monotonic) -> None:
        """`ask` raises PhoenixUnreachable, soon, where Phoenix does not answer at all."""
        self._ask = ask
        self._clock = clock
        self._lock = threading.Lock()
        self._problem: str | None = None
        self._failures = 0
        self._next_try_at = 0.0
        self._asking = False

    @property
    def problem(self) -> str | None:
        """The problem in words; None while Phoenix answers, as far as is known."""
        return self._problem

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Let the block use Phoenix.

        Raises PhoenixAway while it is known not to answer, and PhoenixUnreachable where it still does not.
        A block that ends with PhoenixUnreachable begins an outage only if Phoenix answers nobody: one
        project that takes too long keeps no other waiting.
        """
        if self._must_ask():
            self._find_out()
        try:
            yield
        except PhoenixUnreachable:
            if self._begin_asking():
                self._find_out()
            raise

    def _must_ask(self) -> bool:
        """Return whether this job is the one to find out. Raises PhoenixAway."""
        with self._lock:
            if self._problem is None:
                return False
            pause = self._next_try_at - self._clock()
            if pause > 0:
                raise PhoenixAway(self._problem, pause)
            if self._asking:
                raise PhoenixAway(self._problem, ASKING_PAUSE)
            self._asking = True
            return True

    def _begin_asking(self) -> bool:
        with self._lock:
            first = self._problem is None and not self._asking
            self._asking = self._asking or first
            return first

    def _find_out(self) -> None:
        """Ask Phoenix, and remember whether it answers. Raises PhoenixUnreachable."""
        try:
            self._ask()
        except PhoenixUnreachable as problem:
            with self._lock:
                pause = min(FIRST_PAUSE * 2**self._failures, LONGEST_PAUSE)
                self._failures = min(self._failures + 1, 10)
                self._problem, self._next_try_at = str(problem), self._clock() + pause
            raise
        except PhoenixError:
            # It answers; what is wrong, each job finds for itself.
            self._end()
        else:
            self._end()
        finally:
            self._asking = False

    def _end(self) -> None:
        with self._lock:
            self._problem, self._failures = None, 0
