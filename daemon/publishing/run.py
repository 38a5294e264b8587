"""The finished run that is published, read from its folder."""

from dataclasses import dataclass
from datetime import datetime

from daemon.runtime.context import TargetContext
from daemon.runtime.paths import adapter_folder
from daemon.views.run_files import read_progress
from extractors.dataset.snapshot import Snapshot, SnapshotDamaged
from registry.cycles import Cycle
from registry.versions import Version


@dataclass(frozen=True)
class Run:
    """A cycle that ended, with what is told of it."""

    context: TargetContext
    cycle: Cycle
    version: Version | None
    """The candidate; None where the training failed."""
    trained: Cycle
    """The cycle that trained the candidate: itself, but for a second look."""
    snapshot: Snapshot | None
    """What it was judged on, and but for a second look trained on; None where retention has removed it."""

    @classmethod
    def read(cls, context: TargetContext, cycle_id: str) -> "Run":
        cycle = context.store.cycle(cycle_id)
        version = context.store.version(cycle.version_id) if cycle.version_id else None
        trained = context.store.cycle(version.cycle_id) if version else cycle
        try:
            snapshot = context.snapshot(cycle.snapshot_id) if cycle.snapshot_id else None
        except SnapshotDamaged:
            snapshot = None
        return cls(context, cycle, version, trained, snapshot)

    @property
    def adapter_path(self) -> str | None:
        return str(adapter_folder(self.context.data_dir, self.version)) if self.version else None

    def times(self, job: str) -> tuple[datetime, datetime]:
        """When the jobs whose names begin so worked, by what they said; the cycle's where that is gone."""
        jobs = read_progress(self.context.settings, self.cycle).items()
        at = [line.at for name, lines in jobs if name.startswith(job) for line in lines]
        return (min(at), max(at)) if at else (self.cycle.started_at, self.cycle.updated_at)
