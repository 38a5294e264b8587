"""Do the training job in a folder with little memory: so many MB more than the loaded libraries take.

python -m tests.e2e.limited_memory FOLDER MEGABYTES
"""

import resource
import sys
from pathlib import Path

import torch
import trl

from trainers.training import run

LOADED = (torch, trl.SFTTrainer, trl.DPOTrainer)
"""Imported now, so that the limit is on the training's own memory."""


def data_bytes() -> int:
    """What this process has reserved to write to (Linux)."""
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmData:")).split()[1]) * 1024


if __name__ == "__main__":
    limit = data_bytes() + int(sys.argv[2]) * 10**6
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    run(Path(sys.argv[1]))
