"""`learnd work`: the inside of a child process (see daemon/children.py). Not for people."""

from enum import StrEnum
from pathlib import Path


class Work(StrEnum):
    TRAIN = "train"
    EVALUATE = "evaluate"


def work(what: Work, folder: Path) -> None:
    """Do the job in FOLDER; its result is renamed into place there, last."""
    if what is Work.TRAIN:
        from trainers.sft import run
    else:
        from evaluation.run import run
    run(folder)
