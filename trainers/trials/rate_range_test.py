"""A learning-rate range test (Smith 2017, arXiv 1506.01186): a suggestion for the base and the data.

The rate rises exponentially from step to step, from one that teaches nothing to one that breaks the
adapter. Two rates are read from the smoothed curve of the loss: the one where it falls most steeply, and
a tenth of the one where it is least (as usual, e.g. in fastai's `lr_find`). The lower of them is the
suggestion, as the peak of a training's warm-up and cosine schedule.
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
"""Multiple of the loss at the beginning at which the test ends: later steps would show nothing more."""
BEGINNING = 5
"""Number of first steps, at rates that teach nothing, whose loss is that of the beginning."""
MIN_FALL = 0.05
"""Share of the beginning's loss by which the smoothed loss must fall for the curve to be clear."""
SMOOTHING = 0.6
"""Share of the past in the smoothed loss."""
MIN_TEST_STEPS = 20


class RateUnclear(LearndError):
    """The curve shows no rate at which the loss falls."""


class RateTestJob(Value):
    """The job of a child that tests learning rates."""

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
    """The result of a learning-rate range test."""

    points: tuple[RatePoint, ...]
    steepest: float
    """The rate at which the loss falls most per factor of the rate."""
    tenth_of_least: float
    """A tenth of the rate at which the loss is least."""
    suggested: float
    """The lower of the two."""
    planned: float
    """The plan's learning rate."""


def run(folder: Path) -> None:
    """Do the RateTestJob in `folder`: `learnd work rates FOLDER`."""
    run_job(folder, RateTestJob, run_rate_test)


def run_rate_test(job: RateTestJob, folder: Path, progress: Progress) -> RateTest:
    """Run the test; return the curve and the suggested rate, which are also written to rates.json.

    Raises RateUnclear, and as `train` does.
    """
    from trainers.jobs.train import prepare_training
    from trainers.trials.short_run import ShortStep, run_short

    beginning: list[float] = []

    def is_broken(step: ShortStep) -> bool:
        if len(beginning) < BEGINNING:
            beginning.append(step.loss)
        return step.loss > BREAKS_AT * max(beginning)

    growth = (job.highest / job.lowest) ** (1 / (job.steps - 1))

    def rate_at(step: int) -> float:
        return job.lowest * growth ** (step - 1)

    prepared = prepare_training(job.training, folder / "short", progress)
    steps = run_short(prepared, steps=job.steps, rate_at=rate_at, until=is_broken)
    rates, losses = [rate_at(each.step) for each in steps], [each.loss for each in steps]
    test = read_curve(rates, losses, job.training.current_stage.hyperparameters.learning_rate)
    write_atomically(folder / CURVE, test.model_dump_json(indent=2))
    return test


def read_curve(rates: Sequence[float], losses: Sequence[float], planned: float) -> RateTest:
    """Read a suggestion from the losses at rising `rates`. Raises RateUnclear.

    `rates` and `losses` have one entry for each step; `planned` is the plan's learning rate.
    """
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
    """Return the exponential moving average, corrected for its start at zero (Kingma, Ba 2015)."""
    mean, smoothed = 0.0, []
    for seen, loss in enumerate(losses, start=1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smoothed.append(mean / (1 - SMOOTHING**seen))
    return smoothed
