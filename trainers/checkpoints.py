"""Checkpoints that a killed training can go on from: only those that were completely written."""

import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

WHOLE = "whole"
"""File in a checkpoint that was completely written."""


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
