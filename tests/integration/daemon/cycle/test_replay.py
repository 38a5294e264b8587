"""What base models wrote, on disk: how long it stays."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.cycle.replay import prune_replay
from daemon.service import Service
from registry.cycles import CycleState
from tests.support.phoenix import wait_until
from tests.support.replay import write_parts
from tests.support.runs import NOWHERE, Runs, make_held_out, make_report


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    made = Runs(tmp_path, NOWHERE, task="generation")
    yield made
    made.store.close()


def list_written(runs: Runs) -> set[str]:
    return {folder.name for folder in (runs.context.data_dir / "replay").iterdir()}


def write_replay(runs: Runs, *digests: str) -> None:
    for digest in digests:
        write_parts(runs.context.data_dir / "replay" / digest)


def test_replay_stays_while_a_target_or_a_version_with_files_uses_its_base(runs: Runs) -> None:
    prune_replay(runs.settings, runs.store)
    write_replay(runs, "base1", "base2", "forgotten")
    snapshot = runs.snapshot(make_held_out(12))
    cycle = runs.train(snapshot, base="base1")
    runs.end(cycle, make_report(snapshot, str(cycle.version_id), right=9))
    runs.store.use_base("acme/routing", "base2", runs.now)
    prune_replay(runs.settings, runs.store)
    assert list_written(runs) == {"base1", "base2"}
    runs.store.mark_files_removed(str(cycle.version_id), runs.now)
    prune_replay(runs.settings, runs.store)
    assert list_written(runs) == {"base2"}


def test_the_replay_of_an_unfinished_cycle_stays_and_none_is_removed_before_it_has_a_plan(runs: Runs) -> None:
    write_replay(runs, "base1", "forgotten")
    cycle = runs.store.start_cycle("acme/routing", "operator", runs.now)
    prune_replay(runs.settings, runs.store)
    assert list_written(runs) == {"base1", "forgotten"}
    runs.context.move(cycle, CycleState.SKIPPED, reason="too few")
    runs.train(runs.snapshot(make_held_out(12)), base="base1")
    prune_replay(runs.settings, runs.store)
    assert list_written(runs) == {"base1"}


def test_replay_of_a_target_that_wants_none_is_removed(tmp_path: Path) -> None:
    runs = Runs(tmp_path, NOWHERE, task="generation", replay_share=0)
    write_replay(runs, "base1")
    runs.store.use_base("acme/routing", "base1", runs.now)
    prune_replay(runs.settings, runs.store)
    assert list_written(runs) == set()
    runs.store.close()


def test_a_daemon_removes_what_nothing_uses(runs: Runs) -> None:
    write_replay(runs, "forgotten")
    service = Service(runs.settings, runs.store)
    service.start()
    try:
        wait_until(lambda: not list_written(runs), 60, "the replay to be removed")
    finally:
        service.close()
