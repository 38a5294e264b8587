"""Callbacks of a training: apply a lowered rate when it resumes, stop when time is up."""

from typing import Any

from transformers import TrainerCallback

from trainers.recovery.guards import RunGuard


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
        self._guard.stop(f"the time is up ({self._guard.limits}): stopping at {where}")
        # If nothing was validated yet, the current weights are the best.
        control.should_save = state.best_global_step is None
        control.should_evaluate = control.should_save and args.eval_strategy != "no"
        control.should_training_stop = True
        return control

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self._guard.save()
