"""Checkpoints from which a killed training can resume: only those that were completely written."""

import shutil
from pathlib import Path

CHECKPOINTS = "checkpoints"
"""Folder of the checkpoints in a run's folder."""
WHOLE = "whole"
"""File in a checkpoint that was completely written."""


def list_whole_checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints in `folder` that were completely written, oldest first."""
    return sorted((mark.parent for mark in folder.glob(f"checkpoint-*/{WHOLE}")), key=read_step)


def read_step(checkpoint: Path) -> int:
    """Read from its name the step after which a checkpoint was written."""
    return int(checkpoint.name.split("-")[1])


def find_last_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint in `folder`, or None; remove those that are not whole."""
    whole = list_whole_checkpoints(folder)
    for checkpoint in folder.glob("checkpoint-*"):
        if checkpoint not in whole:
            shutil.rmtree(checkpoint)
    return whole[-1] if whole else None


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of the finished run in `folder`; a kill in between leaves none marked whole."""
    for checkpoint in (folder / CHECKPOINTS).glob("checkpoint-*"):
        (checkpoint / WHOLE).unlink(missing_ok=True)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
