"""What open pages share is read once, and not kept for too long."""

from threading import Barrier, Thread

import pytest

from daemon.console.base.cache import TtlCache


def test_many_pages_read_once_and_an_old_reading_is_not_shown() -> None:
    read: list[str] = []
    together = Barrier(8)
    shared = TtlCache(lambda key: read.append(key) or len(read), seconds=60)
    found: list[int] = []

    def page() -> None:
        together.wait()
        found.append(shared.of("acme/routing"))

    pages = [Thread(target=page) for _ in range(8)]
    for each in pages:
        each.start()
    for each in pages:
        each.join()
    assert (read, set(found)) == (["acme/routing"], {1})
    assert shared.of("acme/search") == 2
    assert shared.of("acme/routing") == 3, "only the newest key's reading is kept"
    old = TtlCache(lambda key: read.append(key) or len(read), seconds=0)
    assert [old.of(), old.of()] == [4, 5]


def test_what_could_not_be_read_is_read_again() -> None:
    tries = iter((ValueError("not now"), "there it is"))

    def read(_: str) -> str:
        outcome = next(tries)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    shared = TtlCache(read, seconds=60)
    with pytest.raises(ValueError, match="not now"):
        shared.of()
    assert shared.of() == "there it is"
