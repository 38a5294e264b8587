"""TRL's SFT trainer as we run it: logits only where labels are, progress lines, whole checkpoints."""

import math
import shutil
from pathlib import Path
from typing import Any

from torch.nn.functional import cross_entropy
from transformers import TrainerCallback
from trl import SFTTrainer

from extractors.values import LearndError
from trainers.child import Progress
from trainers.training_set import IGNORED

WHOLE = "whole"
"""File in a checkpoint that was completely written."""


class TrainingDiverged(LearndError):
    """The loss is no number any more."""


class LabelledTrainer(SFTTrainer):
    """On a CPU, TRL projects every position onto the vocabulary; here, only those that predict a label."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if return_outputs or self.accelerator.device.type != "cpu":
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        targets = inputs["labels"][:, 1:]
        taught = targets != IGNORED
        columns = taught.any(dim=0).nonzero().flatten()
        seen = {name: tensor for name, tensor in inputs.items() if name != "labels"}
        logits = model(**seen, logits_to_keep=columns, use_cache=False).logits
        loss = cross_entropy(logits.float().flatten(0, 1), targets[:, columns].flatten(), reduction="sum")
        return loss / (taught.sum() if num_items_in_batch is None else num_items_in_batch)


class Reporter(TrainerCallback):
    """Writes what the trainer logs as progress lines, and stops a training that diverged."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:  # noqa: ARG002
        for name in ("loss", "eval_loss"):
            if name in logs and not math.isfinite(logs[name]):
                raise TrainingDiverged(
                    f"{name} is {logs[name]} at step {state.global_step} of {state.max_steps}; "
                    "lower `learning_rate` in the target's hyperparameters"
                )
        if "loss" in logs or "eval_loss" in logs:
            self._progress.write(
                "training",
                step=state.global_step,
                total=state.max_steps,
                loss=logs.get("loss"),
                validation_loss=logs.get("eval_loss"),
                learning_rate=logs.get("learning_rate"),
            )


class MarkWhole(TrainerCallback):
    """Marks a checkpoint once all of it is written: a kill in the middle leaves one without the mark."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        (Path(args.output_dir) / f"checkpoint-{state.global_step}" / WHOLE).touch()


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint in `folder`; those that are not whole are removed."""
    checkpoints = list(folder.glob("checkpoint-*"))
    for checkpoint in checkpoints:
        if not (checkpoint / WHOLE).exists():
            shutil.rmtree(checkpoint)
    whole = [checkpoint for checkpoint in checkpoints if checkpoint.exists()]
    return max(whole, key=lambda checkpoint: int(checkpoint.name.split("-")[1]), default=None)
