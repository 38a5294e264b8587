"""One reading for all open pages, however many there are."""

import time
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """What `read` gives for a key, read again once it is older than `seconds`. Threads share it.

    Only the newest key's is kept: what is read may be large.
    """

    def __init__(self, read: Callable[[str], T], seconds: float) -> None:
        self._read = read
        self._seconds = seconds
        self._lock = Lock()
        self._kept: tuple[str, float, T] | None = None

    def of(self, key: str = "") -> T:
        """The reading for `key`. Raises what `read` does."""
        with self._lock:
            kept = self._kept
            if kept and kept[0] == key and time.monotonic() < kept[1] + self._seconds:
                return kept[2]
            found = self._read(key)
            self._kept = (key, time.monotonic(), found)
            return found
