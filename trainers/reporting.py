"""What a training says while it runs: a progress line a step, and figures a validation."""

import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from trainers.checkpoints import WHOLE
from trainers.child import Progress
from trainers.hyperparameters import Method

FIGURES: Mapping[Method, Mapping[str, str]] = {
    "sft": {"token_accuracy": "eval_mean_token_accuracy"},
    "dpo": {"reward_accuracy": "eval_rewards/accuracies", "reward_margin": "eval_rewards/margins"},
    "kto": {"liked_reward": "eval_rewards/chosen", "disliked_reward": "eval_rewards/rejected"},
}
"""Our names for what TRL's trainers say of a validation."""


class MarkWhole(TrainerCallback):
    """Marks a checkpoint once all of it is written: a kill in the middle leaves one without the mark."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        (Path(args.output_dir) / f"checkpoint-{state.global_step}" / WHOLE).touch()


class Reporter(TrainerCallback):
    """Writes what the trainer logs as progress lines, and keeps count of tokens and time."""

    def __init__(self, method: Method, progress: Progress) -> None:
        self._method = method
        self._progress = progress
        self._began = 0.0
        self._reported = (0.0, 0.0)
        self.seconds = 0.0
        """In steps, without validations and checkpoints."""
        self.tokens = 0.0
        """Trained on since the start, as the rows hold them: a shared beginning counts for each."""

    @property
    def tokens_per_second(self) -> float:
        """Mean over all steps."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self._began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self.seconds += time.monotonic() - self._began

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:  # noqa: ARG002
        if "loss" in logs:
            self._progress.write(
                "training",
                step=state.global_step,
                total=state.max_steps,
                loss=logs["loss"],
                learning_rate=logs["learning_rate"],
                grad_norm=logs["grad_norm"],
                tokens_per_second=self._speed(logs["num_tokens"]),
                memory_bytes=most_memory(args.device.type),
            )
        elif "eval_loss" in logs:
            self._progress.write(
                "training",
                step=state.global_step,
                total=state.max_steps,
                validation_loss=logs["eval_loss"],
                figures=figures(self._method, logs),
            )

    def _speed(self, tokens: float) -> float:
        """Tokens a second since the last report."""
        self.tokens = tokens
        before, seconds = self._reported
        self._reported = (tokens, self.seconds)
        return (tokens - before) / max(self.seconds - seconds, 1e-9)


def figures(method: Method, logs: Mapping[str, float]) -> dict[str, float]:
    """What a validation says beyond its loss; for KTO also how far liked and disliked answers are apart."""
    found = {ours: logs[trl] for ours, trl in FIGURES[method].items() if trl in logs}
    if {"liked_reward", "disliked_reward"} <= found.keys():
        found["separation"] = found["liked_reward"] - found["disliked_reward"]
    return found


def most_memory(device: str) -> int:
    """The most that was held so far, in bytes: of the GPU where `device` is one, else by the process."""
    import torch

    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
