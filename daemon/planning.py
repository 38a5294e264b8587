"""What a cycle would do now, and why, without doing it; and trials of what it would do."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from daemon.children import run_job
from daemon.cycle import (
    Loop,
    base_of,
    choose_plan,
    extract_target,
    snapshot_of,
    start_adapter,
    training_job,
)
from extractors.snapshot import Manifest, write_snapshot
from extractors.values import LearndError, Value
from trainers.plan import Plan
from trainers.rate_test import RateTest, RateTestJob
from trainers.selection import Choice
from trainers.training import TrainingJob


class NothingToTrain(LearndError):
    """A cycle would train nothing now."""


class Preview(Value):
    """What a cycle that began now would train on, and how."""

    data: Manifest
    choice: Choice


@dataclass(frozen=True)
class Rehearsal:
    """A preview with its snapshot, in a folder that goes when it is over."""

    preview: Preview
    snapshot: Path
    scratch: Path
    """For jobs to work in."""

    @property
    def plan(self) -> Plan:
        """Raises NothingToTrain with the reason."""
        plan = self.preview.choice.plan
        if not isinstance(plan, Plan):
            raise NothingToTrain(f"{self.preview.data.target}: {plan.reason}")
        return plan

    def job(self, loop: Loop, stage: int = 0) -> TrainingJob:
        """The training that a cycle would do; of a later stage, as if it began without the one before."""
        return training_job(loop, self.plan, stage, self.snapshot, start_adapter(loop, self.plan))


@contextmanager
def rehearsed(loop: Loop) -> Iterator[Rehearsal]:
    """Extract from what was polled last, and choose. Measures the live model where the rules ask for it.

    Leaves nothing behind. Raises BaseModelUnusable, JobFailed, OverridesInvalid.
    """
    with TemporaryDirectory(prefix="learnd-plan-") as folder:
        scratch = Path(folder)
        snapshot = snapshot_of(loop, extract_target(loop))
        written = write_snapshot(snapshot, scratch)
        choice = choose_plan(loop, base_of(loop.target), snapshot, written, scratch / "measure")
        yield Rehearsal(Preview(data=snapshot.manifest, choice=choice), written, scratch)


def test_rates(loop: Loop, *, steps: int) -> RateTest:
    """A learning-rate range test of the plan's first stage. Raises NothingToTrain, JobFailed."""
    with rehearsed(loop) as rehearsal:
        job = RateTestJob(training=rehearsal.job(loop), steps=steps)
        return RateTest.model_validate(
            run_job("rates", rehearsal.scratch / "rates", job, stop=loop.stop, on_progress=loop.on_progress)
        )
