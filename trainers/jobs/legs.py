"""Training in legs: a stage stops where its leg ends, and the next leg goes on from there.

Until the last leg the learning rate is constant after warm-up, so that contenders can be compared at the end
of any leg; only the last leg lets it fall to zero (Hu et al. 2024, MiniCPM, arXiv 2404.06395).
"""

from pathlib import Path
from typing import Any, Self

from pydantic import model_validator

from extractors.values import Value
from trainers.jobs.job import TrainingResult
from trainers.planning.hyperparameters import Hyperparameters

CLOCK = "leg.json"
"""File in a checkpoint."""


class Leg(Value):
    """A part of a training, up to a step or for some seconds."""

    number: int
    """From 1 on."""
    begin: int = 0
    """Step at which it begins."""
    until: int | None = None
    """Step at which it ends at the latest; None: the last of the plan, or half of them before a last leg."""
    seconds: float | None = None
    """Seconds of its steps, without what comes around them, after which it ends; None: no limit."""
    is_last: bool = False
    """Lets the learning rate fall to zero, stops where validations no longer improve, and keeps the best."""

    @model_validator(mode="after")
    def _check_end(self) -> Self:
        if self.is_last and self.seconds is not None:
            raise ValueError(
                "the rate cannot fall towards a step that is not known: a last leg has no seconds"
            )
        return self

    def find_end(self, planned: int) -> int:
        """Return the step at which the leg ends at the latest; `planned` are the steps of the whole plan."""
        # The last leg needs some steps for the rate to fall.
        latest = planned if self.is_last else planned // 2
        return max(self.begin + 1, latest if self.until is None else self.until)

    def find_schedule(self, planned: int, hyperparameters: Hyperparameters) -> dict[str, Any]:
        """Return transformers' arguments for steps, warm-up and learning rate."""
        warmup, end = round(planned * hyperparameters.warmup_share), self.find_end(planned)
        steps = {"max_steps": end, "warmup_steps": warmup}
        if not self.is_last:
            return {**steps, "lr_scheduler_type": "constant_with_warmup"}
        decay = {"num_decay_steps": max(0, end - max(self.begin, warmup))}
        return {**steps, "lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": decay}


class LegResult(Value):
    """The end of a leg."""

    number: int
    step: int
    """Step at which it ended."""
    end: int
    """Step at which it was to end at the latest."""
    planned: int
    """Steps of the whole plan."""
    seconds: float
    """Seconds of its steps."""
    spent: float
    """Seconds of the contender's training so far, with everything around the steps."""
    stopped: str = ""
    """Why the training is not to go on after it, in words; empty where it may."""
    checkpoint: str = ""
    """Folder of the weights at its end, relative to the training's folder."""
    result: TrainingResult | None = None
    """The adapter, after a last leg."""


class LegClock(Value):
    """How far a leg had come when a checkpoint was written; kept in the checkpoint."""

    number: int
    seconds: float
    """Seconds of the leg's steps."""
    ended: bool


def read_leg_clock(checkpoint: Path | None) -> LegClock | None:
    """Read how far the leg had come at `checkpoint`; None without one."""
    if checkpoint is None or not (checkpoint / CLOCK).exists():
        return None
    return LegClock.model_validate_json((checkpoint / CLOCK).read_text("utf-8"))


def find_leg_file(folder: Path, number: int) -> Path:
    """Return the file in a training's `folder` that holds the result of its leg `number`."""
    return folder / f"leg-{number}.json"
