"""The context in which one target is polled, trained, judged and served."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from threading import Event
from types import MappingProxyType
from typing import Any, TypeVar

import structlog
from pydantic import BaseModel

from daemon.runtime.child_process import OnProgress, run_job
from daemon.runtime.locks import snapshot_lock
from daemon.runtime.paths import hide_folders, run_folder, snapshots_folder
from daemon.runtime.work import Work
from daemon.settings.load import Settings
from daemon.settings.target import TargetSettings
from extractors.dataset.snapshot import Snapshot, read_snapshot, write_snapshot
from registry.cycles import Cycle, CycleCounts, CycleState
from registry.store.store import Store
from trainers.job_folder import ProgressLine

log = structlog.get_logger()
ResultT = TypeVar("ResultT", bound=BaseModel)


@dataclass(frozen=True)
class TargetContext:
    """A target with its settings, the store, the clock, and where progress is reported."""

    settings: Settings
    target: TargetSettings
    store: Store
    clock: Callable[[], datetime]
    """Aware UTC."""
    stop: Event = field(default_factory=Event)
    """Set when the process is asked to end."""
    on_progress: OnProgress = lambda _line: None
    """Called with each progress line of the target's jobs."""

    @property
    def data_dir(self) -> Path:
        return self.settings.data_dir

    @property
    def snapshots(self) -> Path:
        """Folder of the target's snapshots."""
        return snapshots_folder(self.data_dir, self.target.key)

    def run_folder(self, cycle: Cycle) -> Path:
        """Return the folder in which the cycle's jobs work: checkpoints, logs, the report."""
        return run_folder(self.data_dir, cycle)

    def snapshot(self, snapshot_id: str) -> Snapshot:
        """Read a snapshot of the target. Raises SnapshotDamaged."""
        return read_snapshot(self.snapshots / snapshot_id)

    def report_stage(self, stage: str, message: str = "") -> None:
        """Report a stage of the cycle to `on_progress`, beside the lines of its jobs."""
        self.on_progress(ProgressLine(at=self.clock(), stage=stage, message=message))

    def run_job(
        self,
        work: Work,
        folder: Path,
        job: BaseModel,
        result: type[ResultT],
        secrets: Mapping[str, str] = MappingProxyType({}),
    ) -> ResultT:
        """Run `job` in a child process (`daemon.runtime.child_process.run_job`) and return its result.

        Raises JobFailed, Interrupted.
        """
        found = run_job(work, folder, job, stop=self.stop, on_progress=self.on_progress, secrets=secrets)
        return result.model_validate(found)

    def move_with_snapshot(
        self, cycle: Cycle, state: CycleState, snapshot: Snapshot, counts: CycleCounts
    ) -> Cycle:
        """Write `snapshot`, and commit the step to `state` that names it. Raises Locked."""
        with snapshot_lock(self.data_dir, self.target.key):
            write_snapshot(snapshot, self.snapshots)
            return self.move(cycle, state, snapshot_id=snapshot.id, counts=counts)

    def move(self, cycle: Cycle, state: CycleState, **changes: Any) -> Cycle:
        """Commit the step from the cycle's state to `state`; its reason is kept without folders' names."""
        reason = changes.get("reason", "")
        if reason != hide_folders(reason):
            log.info("a step's reason", cycle=cycle.id, state=state, reason=reason)
            changes["reason"] = hide_folders(reason)
        return self.store.advance_cycle(cycle.id, cycle.state, state, self.clock(), **changes)
