"""A learning-rate range test (Smith 2017, arXiv 1506.01186): which rates the base and the data take.

The rate rises exponentially from step to step, from one that teaches nothing to one that breaks the
adapter. On the smoothed curve of the loss, two rates are of interest: where it falls most steeply, and a
tenth of the one at which it is least (the usual readings, e.g. of fastai's `lr_find`). The lower of them
is the suggestion: the warm-up and the cosine of a training reach it and leave it.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from extractors.errors import LearndError
from extractors.values import Value
from trainers.job_folder import Progress, run_job, write_atomically
from trainers.jobs.job import TrainingJob

CURVE = "rates.json"
BREAKS_AT = 2.0
"""Times the loss of the beginning at which the test ends: what follows would show nothing more."""
BEGINNING = 5
"""Steps, at rates that teach nothing, that say where the loss begins."""
MIN_FALL = 0.05
"""Share of the beginning's loss by which the smoothed loss must fall for the curve to say anything."""
SMOOTHING = 0.6
"""Share of the past in the smoothed loss."""
MIN_TEST_STEPS = 20


class RateUnclear(LearndError):
    """The curve shows no rate at which the loss falls."""


class RateTestJob(Value):
    """What a child that tests rates is asked to do."""

    training: TrainingJob
    lowest: float = Field(1e-6, gt=0)
    highest: float = Field(1.0, gt=0)
    steps: int = Field(60, ge=MIN_TEST_STEPS)


class RatePoint(Value):
    """One step of the test."""

    learning_rate: float
    loss: float
    smoothed: float


class RateTest(Value):
    """What the test showed."""

    points: tuple[RatePoint, ...]
    steepest: float
    """The rate at which the loss falls most for a factor of the rate."""
    tenth_of_least: float
    """A tenth of the rate at which the loss is least."""
    suggested: float
    planned: float
    """What the plan would take."""


def run(folder: Path) -> None:
    """Do the RateTestJob in `folder`: `learnd work rates FOLDER`."""
    run_job(folder, RateTestJob, run_rate_test)


def run_rate_test(job: RateTestJob, folder: Path, progress: Progress) -> RateTest:
    """The curve and the suggested rate, also in the folder's rates.json.

    Raises RateUnclear, and as `train` does.
    """
    from trainers.jobs.language_model import prepare_training
    from trainers.trials.short_run import ShortStep, run_short

    beginning: list[float] = []

    def breaks(step: ShortStep) -> bool:
        if len(beginning) < BEGINNING:
            beginning.append(step.loss)
        return step.loss > BREAKS_AT * max(beginning)

    growth = (job.highest / job.lowest) ** (1 / (job.steps - 1))

    def rate(step: int) -> float:
        return job.lowest * growth ** (step - 1)

    training = job.training
    begun = prepare_training(training, folder / "short", progress)
    steps = run_short(begun, steps=job.steps, rate=rate, until=breaks)
    rates, losses = [rate(each.step) for each in steps], [each.loss for each in steps]
    test = read_curve(rates, losses, training.chosen.hyperparameters.learning_rate)
    write_atomically(folder / CURVE, test.model_dump_json(indent=2))
    return test


def read_curve(rates: Sequence[float], losses: Sequence[float], planned: float) -> RateTest:
    """What the losses at rising `rates` suggest beside the `planned` one. Raises RateUnclear."""
    if len(losses) <= BEGINNING:
        raise RateUnclear(
            f"the loss broke within {len(losses)} steps, at rates that should teach nothing: begin at a "
            "lower rate, and look at the data"
        )
    smoothed = _smooth(losses)
    # An easy first batch is no fall.
    least = min(range(BEGINNING, len(smoothed)), key=smoothed.__getitem__)
    began = sum(losses[:BEGINNING]) / BEGINNING
    if smoothed[least] > (1 - MIN_FALL) * began:
        raise RateUnclear(
            f"the loss never falls by {MIN_FALL:.0%}, at no rate from {rates[0]:g} to {rates[-1]:g} "
            f"(it begins at {began:.3g}): take more steps or other bounds, and look at the data"
        )
    log_rates = [math.log(rate) for rate in rates]
    slopes = {
        at: (smoothed[at + 1] - smoothed[at - 1]) / (log_rates[at + 1] - log_rates[at - 1])
        for at in range(1, min(least + 1, len(rates) - 1))
    }
    steepest = rates[min(slopes, key=slopes.__getitem__)]
    tenth = rates[least] / 10
    points = zip(rates, losses, smoothed, strict=True)
    return RateTest(
        points=tuple(RatePoint(learning_rate=rate, loss=loss, smoothed=mean) for rate, loss, mean in points),
        steepest=steepest,
        tenth_of_least=tenth,
        suggested=min(steepest, tenth),
        planned=planned,
    )


def _smooth(losses: Sequence[float]) -> list[float]:
    """The exponential moving average, without the zeros before the first (Kingma, Ba 2015)."""
    mean, smoothed = 0.0, []
    for seen, loss in enumerate(losses, start=1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smoothed.append(mean / (1 - SMOOTHING**seen))
    return smoothed
