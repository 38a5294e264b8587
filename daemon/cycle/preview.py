"""What a cycle would do now, and why, without doing it; and trials of what it would do."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from daemon.cycle.training import build_training_job, choose_plan, describe_base, find_start_adapter
from daemon.data.ingest import assemble_snapshot, extract_target
from daemon.runtime.child_process import Work, run_job
from daemon.runtime.context import TargetContext
from extractors.dataset.snapshot import Manifest, write_snapshot
from extractors.errors import LearndError
from extractors.values import Value
from registry.cycles import Cycle
from trainers.jobs.job import TrainingJob
from trainers.planning.choose_method import MethodChoice
from trainers.planning.hyperparameters import Method
from trainers.planning.plan import Plan
from trainers.trials.estimate_job import JobEstimate
from trainers.trials.rate_range_test import RateTest, RateTestJob


class NothingToTrain(LearndError):
    """A cycle would train nothing now."""


class Preview(Value):
    """What a cycle that began now would train on, and how."""

    data: Manifest
    choice: MethodChoice


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

    def job(self, context: TargetContext, stage: int = 0) -> TrainingJob:
        """The training that a cycle would do; of a later stage, as if it began without the one before."""
        return build_training_job(
            context, self.plan, stage, self.snapshot, find_start_adapter(context, self.plan)
        )


@contextmanager
def rehearse(context: TargetContext) -> Iterator[Rehearsal]:
    """Extract from what was polled last, and choose. Measures the live model where the rules ask for it.

    Leaves nothing behind. Raises BaseModelUnusable, JobFailed, OverridesInvalid.
    """
    with TemporaryDirectory(prefix="learnd-plan-") as folder:
        scratch = Path(folder)
        snapshot = assemble_snapshot(context, extract_target(context.store, context.target))
        written = write_snapshot(snapshot, scratch)
        choice = choose_plan(context, describe_base(context.target), snapshot, written, scratch / "measure")
        yield Rehearsal(Preview(data=snapshot.manifest, choice=choice), written, scratch)


class StageForecast(Value):
    """What a stage of the plan would take."""

    method: Method
    attempt: str
    """How it would begin, in words."""
    steps: int
    tokens: int
    tokens_per_second: float | None
    """None where the memory is too little for even a few steps."""
    memory_bytes: int
    free_bytes: int
    fits: bool
    seconds: float | None
    cost: float | None
    """In `currency`; None without a `price_per_hour`, or without `seconds`."""
    currency: str | None


class Forecast(Value):
    """What a cycle's trainings would take now, and what the target's last ones took."""

    target: str
    plan: str
    """Why these stages, in words."""
    stages: tuple[StageForecast, ...]
    limit_seconds: float | None
    """What the settings allow a cycle's trainings; None is without limit."""
    last: Cycle | None
    """The last cycle that trained."""

    @property
    def seconds(self) -> float | None:
        """Of all stages together; None where that of one is not known."""
        each = [stage.seconds for stage in self.stages if stage.seconds is not None]
        return sum(each) if len(each) == len(self.stages) else None


def forecast(context: TargetContext) -> Forecast:
    """Estimate each stage of the plan from a few steps of it. Raises NothingToTrain, JobFailed."""
    with rehearse(context) as rehearsal:
        plan = rehearsal.plan
        stages = tuple(_forecast_stage(context, rehearsal, number) for number in range(len(plan.stages)))
        limits = rehearsal.job(context).limits
    return Forecast(
        target=context.target.key,
        plan=plan.reason,
        stages=stages,
        limit_seconds=None if math.isinf(limits.seconds) else limits.seconds,
        last=next((cycle for cycle in context.store.cycles(context.target.key) if cycle.training), None),
    )


def _forecast_stage(context: TargetContext, rehearsal: Rehearsal, number: int) -> StageForecast:
    job, training = rehearsal.job(context, number), context.settings.training
    folder = rehearsal.scratch / f"estimate-{number}"
    found = JobEstimate.model_validate(
        run_job(Work.ESTIMATE, folder, job, stop=context.stop, on_progress=context.on_progress)
    )
    made, price = found.estimate, training.price_per_hour
    return StageForecast(
        method=job.chosen.method,
        attempt=str(made.attempt),
        steps=made.steps,
        tokens=made.tokens,
        tokens_per_second=made.tokens_per_second,
        memory_bytes=made.memory.total,
        free_bytes=found.free_bytes,
        fits=found.fits,
        seconds=made.seconds,
        cost=None if price is None or made.seconds is None else price * made.seconds / 3600,
        currency=None if price is None else training.currency,
    )


def run_rate_test(context: TargetContext, *, steps: int) -> RateTest:
    """A learning-rate range test of the plan's first stage. Raises NothingToTrain, JobFailed."""
    with rehearse(context) as rehearsal:
        job = RateTestJob(training=rehearsal.job(context), steps=steps)
        return RateTest.model_validate(
            run_job(
                Work.RATES,
                rehearsal.scratch / "rates",
                job,
                stop=context.stop,
                on_progress=context.on_progress,
            )
        )
