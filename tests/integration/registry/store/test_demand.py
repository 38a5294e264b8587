"""Which targets may need a cycle, as one query tells it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from registry.cycles import CycleState
from registry.store.store import Store
from registry.targets import TargetDemand

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
TWO_DAYS = timedelta(days=2)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path, NOW) as opened:
        yield opened


def list_due(store: Store, now: datetime = LATER) -> list[str]:
    return [demand.target for demand in store.find_demands(now)]


def test_a_target_that_waits_for_nothing_is_not_read(store: Store) -> None:
    store.record_poll("acme/idle", NOW, None)
    assert list_due(store) == []
    assert store.find_demands(NOW, idle=True) == [TargetDemand(target="acme/idle")]
    assert store.find_demand("acme/unknown", NOW) == TargetDemand(target="acme/unknown")


def test_targets_whose_cycle_began_first_come_first(store: Store) -> None:
    store.request_cycle("acme/a-asked", actor="ann", now=NOW)
    store.start_cycle("acme/b-second", "schedule", LATER)
    store.start_cycle("acme/c-first", "schedule", NOW)
    assert list_due(store) == ["acme/c-first", "acme/b-second", "acme/a-asked"]
    first, second, asked = store.find_demands(LATER)
    assert (first.unfinished, first.last_cycle_at, first.asked) == (True, NOW, False)
    assert (second.unfinished, second.last_cycle_ended_at) == (True, LATER)
    assert (asked.unfinished, asked.asked) == (False, True)


def test_a_wish_is_fulfilled_by_the_next_cycle(store: Store) -> None:
    store.request_cycle("acme/routing", actor="ann", now=NOW)
    cycle = store.start_cycle("acme/routing", "operator", LATER)
    assert not store.find_demand("acme/routing", LATER).asked
    store.advance_cycle(cycle.id, CycleState.EXTRACTING, CycleState.SKIPPED, LATER, reason="too little data")
    assert list_due(store) == []
    assert store.find_demand("acme/routing", LATER).last_cycle_ended_at == LATER


def test_a_wish_after_the_clock_was_set_back_counts_as_new(store: Store) -> None:
    ahead = NOW + TWO_DAYS
    store.request_cycle("acme/routing", actor="ann", now=ahead)
    cycle = store.start_cycle("acme/routing", "operator", ahead + timedelta(seconds=1))
    store.advance_cycle(cycle.id, CycleState.EXTRACTING, CycleState.SKIPPED, ahead, reason="too little data")
    assert list_due(store) == []
    store.request_cycle("acme/routing", actor="ann", now=NOW)
    assert list_due(store) == ["acme/routing"]
    cycle = store.start_cycle("acme/routing", "operator", LATER)
    store.advance_cycle(cycle.id, CycleState.EXTRACTING, CycleState.SKIPPED, LATER, reason="too little data")
    assert store.find_demand("acme/routing", LATER).last_cycle_at == LATER
    # The wish of the time when the clock was ahead is fulfilled, though its time is still to come.
    assert list_due(store, LATER + timedelta(minutes=1)) == []
