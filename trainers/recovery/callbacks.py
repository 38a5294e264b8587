"""Callbacks of a training: stopping a diverging loss, applying a lowered rate, stopping when time is up."""

import math
from statistics import median
from typing import Any

from transformers import TrainerCallback

from trainers.recovery.fallbacks import TrainingDiverged
from trainers.recovery.guards import RunGuard

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


class ApplyAttemptRate(TrainerCallback):
    """Sets a resumed training to its attempt's learning rate: the checkpoint restores the earlier one."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **trained: Any) -> None:  # noqa: ARG002
        scheduler, optimizer = trained["lr_scheduler"], trained["optimizer"]
        schedule = scheduler.get_last_lr()
        for index, group in enumerate(optimizer.param_groups):
            was = scheduler.base_lrs[index]
            group["initial_lr"] = scheduler.base_lrs[index] = args.learning_rate
            group["lr"] = schedule[index] * args.learning_rate / was if was else args.learning_rate


class StopInTime(TrainerCallback):
    """Ends a training whose time is up; its result is the best checkpoint so far."""

    def __init__(self, guard: RunGuard) -> None:
        self._guard = guard

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        if self._guard.measure_seconds_left() > 0 or state.global_step >= state.max_steps:
            return control
        where = f"step {state.global_step} of {state.max_steps}"
        self._guard.report(f"the time is up ({self._guard.limits}): stopping at {where}")
        # If nothing was validated yet, the current weights are the best.
        control.should_evaluate = state.best_global_step is None and args.eval_strategy != "no"
        control.should_save = control.should_evaluate
        control.should_training_stop = True
        return control

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self._guard.save()
