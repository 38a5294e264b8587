"""Progress reports of a running training: a line for each step, and figures for each validation."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from trainers.job_folder import Progress
from trainers.memory import measure_peak_memory
from trainers.planning.hyperparameters import Method
from trainers.recovery.checkpoints import WHOLE

FIGURES: Mapping[Method, Mapping[str, str]] = {
    "sft": {"token_accuracy": "eval_mean_token_accuracy"},
    "dpo": {"reward_accuracy": "eval_rewards/accuracies", "reward_margin": "eval_rewards/margins"},
    "kto": {"liked_reward": "eval_rewards/chosen", "disliked_reward": "eval_rewards/rejected"},
}
"""Our names for the figures that TRL's trainers log for a validation."""
EARLY_STEPS = 4
"""Number of first logged steps by which a training's time is estimated."""


class MarkWhole(TrainerCallback):
    """Marks a checkpoint once it is completely written: a kill in the middle leaves one without the mark."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        (Path(args.output_dir) / f"checkpoint-{state.global_step}" / WHOLE).touch()


class ProgressReporter(TrainerCallback):
    """Writes the trainer's logs as progress lines, and counts tokens and time.

    `read_figures` reads a validation's metrics beyond its loss from its log entry. For a trainer that
    does not count tokens, each step counts `tokens_a_step`.
    """

    def __init__(
        self,
        progress: Progress,
        read_figures: Callable[[Mapping[str, float]], dict[str, float]],
        tokens_a_step: float = 0.0,
    ) -> None:
        self._progress = progress
        self.read_figures = read_figures
        self._tokens_a_step = tokens_a_step
        self._began = 0.0
        self._steps = 0
        self._logged: list[tuple[float, float]] = []
        self.seconds = 0.0
        """Time of the steps, without validations and checkpoints."""
        self.tokens = 0.0
        """Tokens trained on since the start; a shared prefix counts for each row."""

    @property
    def tokens_per_second(self) -> float:
        """Mean speed over all steps."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def early_tokens_per_second(self) -> float | None:
        """Mean speed over the first EARLY_STEPS steps, without the very first one, which warms up.

        None if no step was made: a resumed training may only have had to save.
        """
        if not self._logged:
            return None
        tokens, seconds = self._logged[: EARLY_STEPS + 1][-1]
        first = self._logged[0] if len(self._logged) > 1 else (0.0, 0.0)
        return (tokens - first[0]) / max(seconds - first[1], 1e-9)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self._began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self.seconds += time.monotonic() - self._began
        self._steps += 1

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:  # noqa: ARG002
        if "loss" in logs:
            self.tokens = logs.get("num_tokens", self._steps * self._tokens_a_step)
            self._logged.append((self.tokens, self.seconds))
            self._progress.write(
                "training",
                step=state.global_step,
                total=state.max_steps,
                loss=logs["loss"],
                learning_rate=logs["learning_rate"],
                grad_norm=logs["grad_norm"],
                tokens_per_second=self._measure_speed(),
                memory_bytes=measure_peak_memory(args.device.type),
            )
        elif "eval_loss" in logs:
            self._progress.write(
                "training",
                step=state.global_step,
                total=state.max_steps,
                validation_loss=logs["eval_loss"],
                figures=self.read_figures(logs),
            )

    def _measure_speed(self) -> float:
        """Return the tokens per second since the line before."""
        tokens, seconds = self._logged[-1]
        before = self._logged[-2] if len(self._logged) > 1 else (0.0, 0.0)
        return (tokens - before[0]) / max(seconds - before[1], 1e-9)


def read_figures(method: Method, logs: Mapping[str, float]) -> dict[str, float]:
    """Read a validation's metrics beyond its loss; for KTO also the separation of its two rewards."""
    figures = {ours: logs[trl] for ours, trl in FIGURES[method].items() if trl in logs}
    if {"liked_reward", "disliked_reward"} <= figures.keys():
        figures["separation"] = figures["liked_reward"] - figures["disliked_reward"]
    return figures
