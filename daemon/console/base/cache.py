"""A cache that all open pages share, however many there are."""

import time
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class TtlCache(Generic[T]):
    """Keeps what `read` returned for a key, and reads again once that is older than `seconds`.

    Threads share it. Only the newest key's value is kept, because values may be large.
    """

    def __init__(self, read: Callable[[str], T], seconds: float) -> None:
        self._read = read
        self._seconds = seconds
        self._lock = Lock()
        self._kept: tuple[str, float, T] | None = None

    def get(self, key: str = "") -> T:
        """Return the value of `key`. Raises what `read` raises."""
        with self._lock:
            kept = self._kept
            if kept and kept[0] == key and time.monotonic() < kept[1] + self._seconds:
                return kept[2]
            found = self._read(key)
            self._kept = (key, time.monotonic(), found)
            return found
