"""Remove what nobody needs any more: files of old versions, and the runs of ended cycles."""

import shutil

import structlog

from daemon.cycle import Loop
from daemon.promotion import adapter_folder
from registry.cycles import CycleState

log = structlog.get_logger()
RUNS_KEPT = 20
"""Runs of ended cycles whose logs stay, for looking into a failure."""


def prune_target(loop: Loop) -> None:
    """Apply the target's retention policy. What is active, on hold or last good always stays."""
    for version in loop.store.prunable(loop.target.key, keep=loop.target.retention.keep):
        loop.store.files_removed(version.id, loop.clock())
    for version in loop.store.versions(loop.target.key):
        # A version is ruled out first and its files go after, also when a crash came in between.
        folder = adapter_folder(loop.data_dir, version)
        if version.files_removed_at is not None and folder.exists():
            shutil.rmtree(folder)
            log.info("removed files", version=version.id)
    cycles = loop.store.cycles(loop.target.key, limit=1000)
    for cycle in [c for c in cycles if c.ended][RUNS_KEPT:]:
        shutil.rmtree(loop.run_folder(cycle), ignore_errors=True)
    for cycle in cycles:
        if cycle.state in (CycleState.DONE, CycleState.SKIPPED):
            for checkpoints in loop.run_folder(cycle).glob("*/checkpoint*"):
                shutil.rmtree(checkpoints, ignore_errors=True)
