"""The finished run that is published, read from the store and from its folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from daemon.runtime.context import TargetContext
from daemon.runtime.paths import adapter_folder
from daemon.settings.target import TargetSettings
from daemon.views.run_files import read_progress, read_race
from evaluation.race_report import RaceReport
from extractors.dataset.snapshot import Snapshot, SnapshotDamaged
from registry.cycles import Cycle
from trainers.job_folder import ProgressLine


@dataclass(frozen=True)
class FinishedRun:
    """A cycle that ended, with everything that is published of it."""

    target: TargetSettings
    cycle: Cycle
    trained: Cycle
    """The cycle that trained the candidate: itself, except for a second look."""
    adapter_path: str | None
    """Folder of the candidate; None where the training failed."""
    snapshot: Snapshot | None
    """The data it was judged on and, except for a second look, trained on; None where retention has removed
    it."""
    race: RaceReport | None
    """The cycle's race; None where there was none, or it did not end."""
    progress: Mapping[str, Sequence[ProgressLine]]
    """The progress of the cycle's jobs, by the job's name; empty where the run's folder is gone."""

    def find_times(self, *jobs: str) -> tuple[datetime, datetime]:
        """Return when the jobs worked whose names begin with one of `jobs`; the cycle's times where none is
        known.
        """
        at = [line.at for name, lines in self.progress.items() if name.startswith(jobs) for line in lines]
        return (min(at), max(at)) if at else (self.cycle.started_at, self.cycle.updated_at)


def read_run(context: TargetContext, cycle_id: str) -> FinishedRun:
    """Return a finished cycle with what is published of it. Raises OSError where its files cannot be read."""
    cycle = context.store.cycle(cycle_id)
    version = context.store.version(cycle.version_id) if cycle.version_id else None
    try:
        snapshot = context.snapshot(cycle.snapshot_id) if cycle.snapshot_id else None
    except SnapshotDamaged:
        snapshot = None
    return FinishedRun(
        target=context.target,
        cycle=cycle,
        trained=context.store.cycle(version.cycle_id) if version else cycle,
        adapter_path=str(adapter_folder(context.data_dir, version)) if version else None,
        snapshot=snapshot,
        race=read_race(context.settings, cycle),
        progress=read_progress(context.settings, cycle),
    )
