"""Remove what nobody needs any more: files of old versions, runs of ended cycles, old snapshots."""

import shutil
from contextlib import ExitStack

import structlog

from daemon.runtime.context import TargetContext
from daemon.runtime.paths import adapter_folder
from daemon.serving.promotion import open_replicas
from registry.cycles import CycleState
from registry.serving.replica import ReplicaRefused, ReplicaUnreachable
from trainers.recovery.checkpoints import remove_checkpoints

log = structlog.get_logger()
RUNS_KEPT = 20
"""Ended cycles whose runs and snapshots stay, for looking into a failure."""


def prune_target(context: TargetContext) -> None:
    """Apply the target's retention policy. What is active, on hold or last good always stays."""
    _prune_versions(context)
    # Before the cycles: a snapshot that a cycle writes meanwhile is not among these.
    snapshots = list(context.snapshots.glob("[!.]*"))
    cycles = context.store.cycles(context.target.key, limit=100_000)
    for cycle in cycles:
        if cycle.ended:
            # Checkpoints are for going on after a crash; an ended cycle does not go on.
            for folder in context.run_folder(cycle).glob("train-*"):
                remove_checkpoints(folder)
    # The next cycle compares its data with that of the last one that came to a verdict, and counts how many
    # its window has judged.
    trained = [cycle for cycle in cycles if cycle.state is CycleState.DONE and cycle.plan]
    judged = trained[: context.target.gate.candidates_per_window]
    # Phoenix may have been down for long; it is still to get what was measured.
    untold = context.store.unpublished_cycles(context.target.key)
    kept = [cycle for cycle in cycles if not cycle.ended] + cycles[:RUNS_KEPT] + judged + untold
    kept_ids = {cycle.id for cycle in kept}
    for cycle in cycles:
        if cycle.id not in kept_ids:
            shutil.rmtree(context.run_folder(cycle), ignore_errors=True)
    named = {cycle.snapshot_id for cycle in kept}
    named |= {v.snapshot_id for v in context.store.versions(context.target.key) if v.files_removed_at is None}
    for folder in snapshots:
        if folder.name not in named:
            shutil.rmtree(folder)


def _prune_versions(context: TargetContext) -> None:
    try:
        served = _list_loaded(context)
    except (ReplicaUnreachable, ReplicaRefused) as problem:
        # vLLM ends when it misses a file of an adapter that it still lists.
        log.info("no version is removed", target=context.target.key, because=str(problem))
        return
    for version in context.store.prunable(context.target.key, keep=context.target.retention.keep):
        if version.id not in served:
            context.store.files_removed(version.id, context.clock())
    for version in context.store.versions(context.target.key):
        # A version is ruled out first and its files go after, also when a crash came in between.
        folder = adapter_folder(context.data_dir, version)
        if version.files_removed_at is not None and folder.exists():
            shutil.rmtree(folder)
            log.info("removed files", version=version.id)


def _list_loaded(context: TargetContext) -> set[str]:
    """Adapters that any replica of the target has loaded. Raises where one does not say."""
    with ExitStack() as stack:
        replicas = open_replicas(context.settings, context.target, stack)
        return {name for replica in replicas for name in replica.adapters()}
