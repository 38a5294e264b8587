"""Previews of a cycle: the plan that it would choose now, time and memory of its training, and trials."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from daemon.cycle.replay import ReplayForecast, forecast_replay
from daemon.cycle.training import build_training_job, choose_plan, describe_base, find_start_adapter
from daemon.data.ingest import assemble_snapshot, extract_target
from daemon.runtime.context import TargetContext
from daemon.runtime.work import Work
from extractors.dataset.snapshot import Manifest, write_snapshot
from extractors.errors import LearndError
from extractors.values import Value
from registry.cycles import Cycle
from trainers.jobs.job import TrainingJob
from trainers.planning.apply_rules import MethodChoice
from trainers.planning.hyperparameters import Method
from trainers.planning.plan import Plan
from trainers.trials.estimate_job import JobEstimate
from trainers.trials.rate_range_test import RateTest, RateTestJob


class NothingToTrain(LearndError):
    """A cycle would train nothing now."""


class Preview(Value):
    """The data and the plan of a cycle if it began now."""

    data: Manifest
    choice: MethodChoice
    replay: ReplayForecast | None
    """None where nothing is trained."""


@dataclass(frozen=True)
class Rehearsal:
    """A preview with its snapshot, in a temporary folder."""

    context: TargetContext
    preview: Preview
    snapshot: Path
    """Folder of the snapshot."""
    scratch: Path
    """Folder for the jobs of trials."""

    @property
    def plan(self) -> Plan:
        """The plan that a cycle would train. Raises NothingToTrain with the reason."""
        plan = self.preview.choice.plan
        if not isinstance(plan, Plan):
            raise NothingToTrain(f"{self.preview.data.target}: {plan.reason}")
        return plan

    def build_job(self, stage: int = 0) -> TrainingJob:
        """Return the training job of a stage; a later stage starts without the stage before it."""
        start = find_start_adapter(self.context, self.plan)
        return build_training_job(self.context.settings.training, self.plan, stage, self.snapshot, start)


@contextmanager
def rehearse(context: TargetContext) -> Iterator[Rehearsal]:
    """Extract what was polled last and choose a plan; the files are removed when the block ends.

    Measures the live model where the rules ask for that. Raises BaseModelUnusable, JobFailed,
    OverridesInvalid.
    """
    with TemporaryDirectory(prefix="learnd-plan-") as folder:
        scratch = Path(folder)
        snapshot = assemble_snapshot(context, extract_target(context.store, context.target))
        written = write_snapshot(snapshot, scratch)
        choice = choose_plan(context, describe_base(context.target), snapshot, written, scratch / "measure")
        replay = forecast_replay(context, choice.plan) if isinstance(choice.plan, Plan) else None
        preview = Preview(data=snapshot.manifest, choice=choice, replay=replay)
        yield Rehearsal(context, preview, written, scratch)


class StageForecast(Value):
    """Time, memory and cost of a stage of the plan."""

    method: Method
    attempt: str
    """The batch size and precision that it would start with, in words."""
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
    """Time, memory and cost of a cycle's trainings, beside those of the last cycle."""

    target: str
    plan: str
    """Why these stages, in words."""
    stages: tuple[StageForecast, ...]
    challengers: tuple[str, ...] = ()
    """Names of the other ways to train, which race with the plan's stages."""
    race_cost: float | None = None
    """Most seconds of the race, as a multiple of those of `stages`; None without challengers."""
    limit_seconds: float | None
    """The most that the settings allow for a cycle's trainings; None is without limit."""
    last: Cycle | None
    """The last cycle that trained."""

    @property
    def seconds(self) -> float | None:
        """Seconds of all stages together; None where those of one stage are not known."""
        each = [stage.seconds for stage in self.stages if stage.seconds is not None]
        return sum(each) if len(each) == len(self.stages) else None

    @property
    def race_seconds(self) -> float | None:
        """Most seconds of the race; None where there is none, or `seconds` is not known."""
        if self.seconds is None or self.race_cost is None:
            return None
        return min(self.seconds * self.race_cost, self.limit_seconds or math.inf)


def forecast(context: TargetContext) -> Forecast:
    """Estimate each stage of the plan by training a few steps. Raises NothingToTrain, JobFailed."""
    with rehearse(context) as rehearsal:
        plan = rehearsal.plan
        stages = tuple(_forecast_stage(rehearsal, number) for number in range(len(plan.stages)))
        limits = rehearsal.build_job().limits
    return Forecast(
        target=context.target.key,
        plan=plan.reason,
        stages=stages,
        challengers=tuple(each.name for each in plan.challengers),
        race_cost=plan.race_cost,
        limit_seconds=None if math.isinf(limits.seconds) else limits.seconds,
        last=next((cycle for cycle in context.store.cycles(context.target.key) if cycle.training), None),
    )


def _forecast_stage(rehearsal: Rehearsal, number: int) -> StageForecast:
    job, context = rehearsal.build_job(number), rehearsal.context
    training = context.settings.training
    found = context.run_job(Work.ESTIMATE, rehearsal.scratch / f"estimate-{number}", job, JobEstimate)
    made, price = found.estimate, training.price_per_hour
    return StageForecast(
        method=job.current_stage.method,
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
    """Run a learning-rate range test of the plan's first stage. Raises NothingToTrain, JobFailed."""
    with rehearse(context) as rehearsal:
        job = RateTestJob(training=rehearsal.build_job(), steps=steps)
        return context.run_job(Work.RATES, rehearsal.scratch / "rates", job, RateTest)
