"""Remove files that nobody needs any more: of old versions, runs of ended cycles, and old snapshots."""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack

import structlog

from daemon.runtime.context import TargetContext
from daemon.runtime.locks import snapshot_lock
from daemon.runtime.paths import adapter_folder
from daemon.serving.promotion import open_replicas
from registry.cycles import Cycle, CycleState
from registry.serving.replica import ReplicaRefused, ReplicaUnreachable
from trainers.recovery.checkpoints import remove_checkpoints

log = structlog.get_logger()
RUNS_KEPT = 20
"""How many ended cycles keep their runs and snapshots, so that a failure can be looked into."""


def prune_target(context: TargetContext) -> None:
    """Apply the target's retention policy. Versions that are active, on hold or last good are kept."""
    _prune_versions(context)
    cycles = context.store.cycles(context.target.key, limit=100_000)
    for cycle in cycles:
        if cycle.ended:
            # Checkpoints are for going on after a crash; an ended cycle does not go on.
            for folder in context.run_folder(cycle).glob("train-*"):
                remove_checkpoints(folder)
    kept = _select_kept(context, cycles)
    kept_ids = {cycle.id for cycle in kept}
    for cycle in cycles:
        if cycle.id not in kept_ids:
            shutil.rmtree(context.run_folder(cycle), ignore_errors=True)
    with snapshot_lock(context.data_dir, context.target.key):
        _prune_snapshots(context)


def _prune_snapshots(context: TargetContext) -> None:
    kept = _select_kept(context, context.store.cycles(context.target.key, limit=100_000))
    used = {cycle.snapshot_id for cycle in kept}
    used |= {v.snapshot_id for v in context.store.versions(context.target.key) if v.files_removed_at is None}
    for folder in context.snapshots.glob("[!.]*"):
        if folder.name not in used:
            shutil.rmtree(folder)


def _select_kept(context: TargetContext, cycles: Sequence[Cycle]) -> list[Cycle]:
    """Return the cycles whose runs and snapshots are kept; `cycles` are all of the target, newest first."""
    # The next cycle compares its data with that of the last one that reached a verdict, and counts how many
    # its window has judged.
    trained = [cycle for cycle in cycles if cycle.state is CycleState.DONE and cycle.plan]
    judged = trained[: context.target.gate.candidates_per_window]
    # Phoenix may have been down for long; what was measured is still to be published.
    unpublished = context.store.find_unpublished_cycles(context.target.key)
    running = [cycle for cycle in cycles if not cycle.ended]
    return [*running, *cycles[:RUNS_KEPT], *judged, *unpublished]


def _prune_versions(context: TargetContext) -> None:
    try:
        loaded = _list_loaded(context)
    except (ReplicaUnreachable, ReplicaRefused) as problem:
        # vLLM ends when it misses a file of an adapter that it still lists.
        log.info("no version is removed", target=context.target.key, because=str(problem))
        return
    for version in context.store.find_prunable(context.target.key, keep=context.target.retention.keep):
        if version.id not in loaded:
            context.store.mark_files_removed(version.id, context.clock())
    for version in context.store.versions(context.target.key):
        # The store records the removal first; the files follow, also if a crash came in between.
        folder = adapter_folder(context.data_dir, version)
        if version.files_removed_at is not None and folder.exists():
            shutil.rmtree(folder)
            log.info("removed files", version=version.id)


def _list_loaded(context: TargetContext) -> set[str]:
    """Return the adapters that any replica of the target has loaded.

    Raises ReplicaUnreachable, ReplicaRefused where one replica does not say.
    """
    with ExitStack() as stack:
        replicas = open_replicas(context.settings, context.target, stack)
        return {name for replica in replicas for name in replica.list_adapters()}
