"""Do the training job in a folder with MEGABYTES more memory than the loaded libraries take.

python -m tests.e2e.limited_memory train|estimate|race FOLDER MEGABYTES
"""

import resource
import sys
from pathlib import Path

import torch
import trl

from evaluation.race import language_track
from evaluation.race import run as race
from trainers.jobs import train
from trainers.trials import estimate_job

LOADED = (torch, trl.SFTTrainer, trl.DPOTrainer, language_track)
"""Imported now, so that the limit is on the training's own memory."""

WORK = {"train": train.run, "estimate": estimate_job.run, "race": race.run}


def read_data_bytes() -> int:
    """Return the bytes that this process has reserved for data (Linux)."""
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmData:")).split()[1]) * 1024


def work_limited(work: str, folder: Path, megabytes: int) -> None:
    limit = read_data_bytes() + megabytes * 10**6
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    WORK[work](folder)


if __name__ == "__main__":
    work_limited(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
