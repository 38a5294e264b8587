"""Detect a diverging loss, and end the training before a checkpoint of it is written."""

import math
from statistics import median
from typing import Any

from transformers import TrainerCallback

from trainers.recovery.fallbacks import TrainingDiverged

SMOOTHING = 0.7
"""Share of the past in the smoothed loss."""
BEGINNING = 5
"""Number of first logged losses whose median is the loss at the beginning."""
MULTIPLE = 2.0
"""Multiple of the best smoothed loss above which a loss diverges, if half of the gain is lost as well: late
in a training the best is near zero, and one hard batch is many times as much."""
IN_A_ROW = 10
"""Consecutive logged losses that must lie above it."""


class LossWatch:
    """Detects divergence from the losses in the order in which they are logged."""

    def __init__(self) -> None:
        self._seen = 0
        self._smoothed = 0.0
        self._first: list[float] = []
        self._best = math.inf
        self._best_step = 0
        self._above = 0

    def observe(self, step: int, loss: float) -> None:
        """Take in the next loss. Raises TrainingDiverged if it is not a number, or if losses keep rising."""
        if not math.isfinite(loss):
            raise TrainingDiverged(f"the loss is {loss} at step {step}", step - 1)
        self._seen += 1
        self._smoothed = SMOOTHING * self._smoothed + (1 - SMOOTHING) * loss
        if self._seen <= BEGINNING:
            self._first.append(loss)
        # Corrected as Adam's moments are: there were no zeros before the first (Kingma, Ba 2015).
        smoothed = self._smoothed / (1 - SMOOTHING**self._seen)
        if smoothed < self._best:
            self._best, self._best_step = smoothed, step
        # The median: a training that breaks at once must not itself raise the loss at its beginning.
        half_lost = (self._best + median(self._first)) / 2
        away = smoothed > max(MULTIPLE * self._best, half_lost)
        self._above = self._above + 1 if away else 0
        if self._above == IN_A_ROW:
            raise TrainingDiverged(
                f"the loss has risen from {self._best:.3g} at step {self._best_step} to {smoothed:.3g} "
                f"at step {step}",
                self._best_step,
            )


class StopDiverging(TrainerCallback):
    """Ends a diverging training by TrainingDiverged, before a checkpoint of it is written."""

    def __init__(self) -> None:
        self._watch = LossWatch()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:  # noqa: ARG002
        for name in ("grad_norm", "eval_loss"):
            if name in logs and not math.isfinite(logs[name]):
                raise TrainingDiverged(
                    f"{name} is {logs[name]} at step {state.global_step}", state.global_step - 1
                )
        if "loss" in logs:
            self._watch.observe(state.global_step, logs["loss"])
