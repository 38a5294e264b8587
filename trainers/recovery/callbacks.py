"""Callbacks that watch a training: a loss that runs away, a rate that was lowered, a time that is up."""

import math
from statistics import median
from typing import Any

from transformers import TrainerCallback

from trainers.recovery.fallbacks import TrainingDiverged
from trainers.recovery.guards import RunGuard

SMOOTHING = 0.7
"""Share of the past in the smoothed loss."""
BEGINNING = 5
"""Logged losses that say where the training began."""
MULTIPLE = 2.0
"""Times the best smoothed loss from which on a loss runs away, if half of what was gained is lost as well:
far down, the best is near zero, and one hard batch is many times as much."""
IN_A_ROW = 10
"""Logged losses for which it must."""


class LossWatch:
    """Sees the losses in the order in which they are logged."""

    def __init__(self) -> None:
        self._seen = 0
        self._smoothed = 0.0
        self._first: list[float] = []
        self._best = math.inf
        self._best_step = 0
        self._above = 0

    def see(self, step: int, loss: float) -> None:
        """Raises TrainingDiverged when the loss is no number, or runs away."""
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
        # The median: a training that breaks at once must not say itself that it began that high.
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
    """Raises TrainingDiverged out of a training that diverges, before a checkpoint of it is written."""

    def __init__(self) -> None:
        self._watch = LossWatch()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:  # noqa: ARG002
        for name in ("grad_norm", "eval_loss"):
            if name in logs and not math.isfinite(logs[name]):
                raise TrainingDiverged(
                    f"{name} is {logs[name]} at step {state.global_step}", state.global_step - 1
                )
        if "loss" in logs:
            self._watch.see(state.global_step, logs["loss"])


class ApplyAttemptRate(TrainerCallback):
    """Has a resumed training go on at its attempt's rate: the checkpoint brings back that of its own time."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **trained: Any) -> None:  # noqa: ARG002
        scheduler, optimizer = trained["lr_scheduler"], trained["optimizer"]
        schedule = scheduler.get_last_lr()
        for index, group in enumerate(optimizer.param_groups):
            was = scheduler.base_lrs[index]
            group["initial_lr"] = scheduler.base_lrs[index] = args.learning_rate
            group["lr"] = schedule[index] * args.learning_rate / was if was else args.learning_rate


class StopInTime(TrainerCallback):
    """Ends a training whose time is up; what it keeps is its best checkpoint so far."""

    def __init__(self, guard: RunGuard) -> None:
        self._guard = guard

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        if self._guard.seconds_left() > 0 or state.global_step >= state.max_steps:
            return control
        where = f"step {state.global_step} of {state.max_steps}"
        self._guard.tell(f"the time is up ({self._guard.limits}): stopping at {where}")
        # Where nothing was validated yet, what there is now is the best.
        control.should_evaluate = state.best_global_step is None and args.eval_strategy != "no"
        control.should_save = control.should_evaluate
        control.should_training_stop = True
        return control

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self._guard.keep()
