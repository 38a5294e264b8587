"""Checkpoints that a killed training can go on from: only those that were completely written."""

import shutil
from pathlib import Path

WHOLE = "whole"
"""File in a checkpoint that was completely written."""


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint in `folder`; those that are not whole are removed."""
    checkpoints = list(folder.glob("checkpoint-*"))
    for checkpoint in checkpoints:
        if not (checkpoint / WHOLE).exists():
            shutil.rmtree(checkpoint)
    whole = [checkpoint for checkpoint in checkpoints if checkpoint.exists()]
    return max(whole, key=lambda checkpoint: int(checkpoint.name.split("-")[1]), default=None)
