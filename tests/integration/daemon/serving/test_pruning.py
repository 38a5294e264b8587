"""Files that nobody needs any more are removed, and no others."""

from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillWaiting

import pytest

from daemon.runtime.locks import snapshot_lock
from daemon.serving.pruning import prune_target
from registry.cycles import CycleCounts, CycleState
from tests.support.runs import Runs


def test_a_snapshot_that_a_cycle_is_about_to_name_is_not_removed(runs: Runs) -> None:
    cycle = runs.store.start_cycle("acme/routing", "operator", runs.now)
    with ThreadPoolExecutor(1) as pool:
        with snapshot_lock(runs.context.data_dir, "acme/routing"):
            snapshot = runs.snapshot([])
            pruning = pool.submit(prune_target, runs.context)
            with pytest.raises(StillWaiting):
                pruning.result(0.3)
            runs.context.move(cycle, CycleState.SELECTING, snapshot_id=snapshot.id)
        pruning.result(30)
    assert runs.context.snapshot(snapshot.id) == snapshot


def test_a_snapshot_that_no_cycle_names_is_removed_and_written_again_when_one_does(runs: Runs) -> None:
    cycle = runs.store.start_cycle("acme/routing", "operator", runs.now)
    snapshot = runs.snapshot([])
    prune_target(runs.context)
    assert not (runs.context.snapshots / snapshot.id).exists()
    runs.context.move_with_snapshot(cycle, CycleState.SELECTING, snapshot, CycleCounts())
    prune_target(runs.context)
    assert runs.context.snapshot(snapshot.id).manifest == snapshot.manifest
