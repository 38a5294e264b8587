"""What the steps of one target's cycles work with."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Any

from daemon.runtime.child_process import OnProgress
from daemon.runtime.paths import run_folder, snapshots_folder
from daemon.settings.load import Settings
from daemon.settings.target import TargetSettings
from extractors.dataset.snapshot import Snapshot, read_snapshot
from registry.cycles import Cycle, CycleState
from registry.store.store import Store


@dataclass(frozen=True)
class TargetContext:
    """A target, where its data lies, and what there is to work with."""

    settings: Settings
    target: TargetSettings
    store: Store
    clock: Callable[[], datetime]
    """Aware UTC."""
    stop: Event = field(default_factory=Event)
    on_progress: OnProgress = lambda _line: None

    @property
    def data_dir(self) -> Path:
        return self.settings.data_dir

    def run_folder(self, cycle: Cycle) -> Path:
        """Where the cycle's jobs work: checkpoints, logs, the report."""
        return run_folder(self.data_dir, cycle)

    def snapshot(self, snapshot_id: str) -> Snapshot:
        return read_snapshot(self.snapshots / snapshot_id)

    @property
    def snapshots(self) -> Path:
        return snapshots_folder(self.data_dir, self.target.key)

    def move(self, cycle: Cycle, state: CycleState, **changes: Any) -> Cycle:
        """Commit the step from the cycle's state to `state`."""
        return self.store.advance_cycle(cycle.id, cycle.state, state, self.clock(), **changes)
