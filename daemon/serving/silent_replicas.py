"""Remembers which replicas hang: one target finds out, and the others do not wait for the same replica."""

import threading
import time
from collections.abc import Callable

REST_SECONDS = 30.0
"""How long a replica that gave no answer in time is not asked again."""


class SilentReplicas:
    """The replicas that are let rest, by name. Threads share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` returns seconds and never goes back."""
        self._clock = clock
        self._lock = threading.Lock()
        self._resting: dict[str, tuple[float, str]] = {}

    def find_problem(self, replica: str) -> str | None:
        """Return what is known of a replica that rests; None for one that may be asked."""
        with self._lock:
            until, problem = self._resting.get(replica, (0.0, ""))
            return problem if self._clock() < until else None

    def let_rest(self, replica: str, problem: str) -> None:
        """Remember that the replica did not answer in time."""
        with self._lock:
            self._resting[replica] = (self._clock() + REST_SECONDS, problem)
