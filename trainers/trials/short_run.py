"""A few steps of a training on its real base and data, to measure its speed or to test learning rates."""

import math
import sys
from collections.abc import Callable
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback

from extractors.values import Value
from trainers.jobs.reporting import MarkWhole
from trainers.jobs.shared_steps import PreparedTraining
from trainers.recovery.callbacks import StopInTime
from trainers.recovery.divergence import StopDiverging


class ShortStep(Value):
    """One optimiser step."""

    step: int
    """From 1 on."""
    loss: float
    """Loss before the step; the greatest float if it is not a number."""


def run_short(
    prepared: PreparedTraining,
    *,
    steps: int,
    rate_at: Callable[[int], float] | None = None,
    until: Callable[[ShortStep], bool] = lambda _: False,
) -> tuple[ShortStep, ...]:
    """Run a number of `steps` of a training from its beginning, without validations and checkpoints.

    `rate_at` returns the learning rate of each step from 1 on; without it, rates are the plan's. The run
    ends early after a step for which `until` returns True.
    """
    trainer, recorder = prepared.trainer, _StepRecorder(until)
    _shorten(trainer, steps)
    trainer.add_callback(recorder)
    if rate_at is not None:
        _set_rates(trainer, rate_at)
    trainer.train()
    return tuple(recorder.steps)


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


def _set_rates(trainer: Any, rate_at: Callable[[int], float]) -> None:
    """Replace the plan's schedule: step n takes the rate `rate_at(n)`."""
    from torch.optim.lr_scheduler import LambdaLR

    trainer.create_optimizer()
    for group in trainer.optimizer.param_groups:
        group["lr"] = group["initial_lr"] = 1.0
    trainer.lr_scheduler = LambdaLR(trainer.optimizer, lambda done: rate_at(done + 1))
