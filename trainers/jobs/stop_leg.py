"""The callbacks that end a leg of a training."""

import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from trainers.jobs.legs import CLOCK, Leg, LegClock, read_leg_clock
from trainers.recovery.checkpoints import find_last_checkpoint


class StopLeg(TrainerCallback):
    """Ends a leg after its seconds, and measures them. A resumed leg goes on counting."""

    def __init__(self, leg: Leg, checkpoints: Path) -> None:
        self._leg = leg
        self._checkpoints = checkpoints
        self._began = 0.0
        before = read_leg_clock(find_last_checkpoint(checkpoints))
        self.seconds = before.seconds if before and before.number == leg.number else 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self._began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:  # noqa: ARG002
        self.seconds += time.monotonic() - self._began
        if self._leg.seconds is not None and self.seconds >= self._leg.seconds:
            control.should_evaluate = args.eval_strategy != "no"
            control.should_save = control.should_training_stop = True
        return control

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        clock = LegClock(
            number=self._leg.number, seconds=self.seconds, ended=bool(control.should_training_stop)
        )
        file = self._checkpoints / f"checkpoint-{state.global_step}" / CLOCK
        file.write_text(clock.model_dump_json(), "utf-8")


class StopStaleLeg(TrainerCallback):
    """Ends a last leg after `patience` validations of its own without a better one.

    It looks at the validations that the trainer keeps: transformers' own callback cannot begin in a training
    whose earlier checkpoints do not know it.
    """

    def __init__(self, leg: Leg, patience: int) -> None:
        self._begin = leg.begin
        self._patience = patience

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> Any:  # noqa: ARG002
        losses = [(entry["eval_loss"], entry["step"]) for entry in state.log_history if "eval_loss" in entry]
        _, best = min(losses)
        stale = sum(step > max(best, self._begin) for _, step in losses)
        if stale >= self._patience:
            control.should_training_stop = True
        return control
