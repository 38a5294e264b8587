"""A cache that open pages share reads once, and keeps nothing for too long."""

from threading import Barrier, Thread

import pytest

from daemon.console.base.cache import TtlCache


def test_many_pages_read_once_and_an_old_reading_is_not_shown() -> None:
    read: list[str] = []
    together = Barrier(8)
    cache = TtlCache(lambda key: read.append(key) or len(read), seconds=60)
    found: list[int] = []

    def page() -> None:
        together.wait()
        found.append(cache.get("acme/routing"))

    pages = [Thread(target=page) for _ in range(8)]
    for each in pages:
        each.start()
    for each in pages:
        each.join()
    assert (read, set(found)) == (["acme/routing"], {1})
    assert cache.get("acme/search") == 2
    assert cache.get("acme/routing") == 3, "only the newest key's reading is kept"
    old = TtlCache(lambda key: read.append(key) or len(read), seconds=0)
    assert [old.get(), old.get()] == [4, 5]


def test_what_could_not_be_read_is_read_again() -> None:
    tries = iter((ValueError("not now"), "there it is"))

    def read(_: str) -> str:
        outcome = next(tries)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    cache = TtlCache(read, seconds=60)
    with pytest.raises(ValueError, match="not now"):
        cache.get()
    assert cache.get() == "there it is"
