"""A few steps of a training, on its real base and data, that leave nothing: to measure speed, or a rate."""

import math
import sys
from collections.abc import Callable
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback

from extractors.values import Value
from trainers.jobs.reporting import MarkWhole
from trainers.jobs.shared_steps import PreparedTraining
from trainers.recovery.callbacks import StopDiverging, StopInTime


class ShortStep(Value):
    """One optimiser step."""

    step: int
    """From 1 on."""
    loss: float
    """Before the step; the greatest number there is where it is none."""


def run_short(
    begun: PreparedTraining,
    *,
    steps: int,
    rate: Callable[[int], float] | None = None,
    until: Callable[[ShortStep], bool] = lambda _: False,
) -> tuple[ShortStep, ...]:
    """So many steps of a training from its beginning, without validations and checkpoints.

    `rate` is the learning rate of each step from 1 on; without it, rates are the plan's. The run ends
    after a step for which `until` is true.
    """
    trainer, watch = begun.trainer, _StepRecorder(until)
    _shorten(trainer, steps)
    trainer.add_callback(watch)
    if rate is not None:
        _set_rates(trainer, rate)
    trainer.train()
    return tuple(watch.steps)


class _StepRecorder(TrainerCallback):
    def __init__(self, until: Callable[[ShortStep], bool]) -> None:
        self._until = until
        self.steps: list[ShortStep] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:  # noqa: ARG002
        if "loss" not in logs:
            return
        loss = logs["loss"] if math.isfinite(logs["loss"]) else sys.float_info.max
        self.steps.append(ShortStep(step=state.global_step, loss=loss))
        if self._until(self.steps[-1]):
            control.should_training_stop = True


def _shorten(trainer: Any, steps: int) -> None:
    for callback in (StopDiverging, StopInTime, MarkWhole, EarlyStoppingCallback):
        trainer.remove_callback(callback)
    trainer.args.max_steps = steps
    trainer.args.logging_steps = 1
    trainer.args.eval_strategy = trainer.args.save_strategy = "no"
    trainer.args.eval_on_start = trainer.args.load_best_model_at_end = False


def _set_rates(trainer: Any, rate: Callable[[int], float]) -> None:
    """Have step n take the rate of n, whatever the plan's schedule is."""
    from torch.optim.lr_scheduler import LambdaLR

    trainer.create_optimizer()
    for group in trainer.optimizer.param_groups:
        group["lr"] = group["initial_lr"] = 1.0
    trainer.lr_scheduler = LambdaLR(trainer.optimizer, lambda done: rate(done + 1))
