"""The start of commands and of child processes: CPU time, as a ratio to what nobody could save.

A command is compared with a Python that imports Typer and rich, a child with one that imports PyTorch. CPU
time (user and system) of a whole process, the least of several runs: other work on the machine adds to it.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import tomli_w

from trainers.job_folder import CHILD_ENV

ROOT = Path(__file__).resolve().parents[2]
RUNS = 7
AIMS = {
    "help": 2.5,
    "version": 2.5,
    "mistyped": 2.5,
    "status": 6.0,
    "cycles list": 6.0,
    "adapters list": 6.0,
}
"""Ratios that a command should stay below."""
TARGET = {"tenant": "acme", "agent": "routing", "project": "p", "task": "generation", "base_model": "none"}
CHILDREN = {
    "train": "from trainers.models.base_model import use_threads; use_threads(None)\n"
    "with quick_imports(): from trainers.jobs import language_model",
    "evaluate": "from trainers.models.base_model import use_threads; use_threads(None)\n"
    "with quick_imports(): from evaluation.engine import generate",
}


def measure() -> Mapping[str, Mapping[str, float]]:
    """Return seconds, ratio and aim of each command, and seconds and ratio of each kind of child."""
    with TemporaryDirectory(prefix="learnd-startup-") as folder:
        return _measure_commands(Path(folder)) | _measure_children()


def _measure_commands(folder: Path) -> Mapping[str, Mapping[str, float]]:
    config = folder / "learnd.toml"
    config.write_text(tomli_w.dumps({"data_dir": "data", "targets": [TARGET]}), "utf-8")
    commands = {
        "help": ["--help"],
        "version": ["version"],
        "mistyped": ["cylces"],
        "status": ["status", "-c", str(config)],
        "cycles list": ["cycles", "list", "-c", str(config)],
        "adapters list": ["adapters", "list", "-c", str(config)],
    }
    # The first one makes the database.
    _measure_seconds(["-m", "learnd", *commands["status"]], runs=1)
    least = _measure_seconds(["-c", "import typer, rich"])
    found = {}
    for name, words in commands.items():
        seconds = _measure_seconds(["-m", "learnd", *words])
        found[name] = {"seconds": seconds, "ratio": seconds / least, "aim": AIMS[name]}
    return found


def _measure_children() -> Mapping[str, Mapping[str, float]]:
    least = _measure_seconds(["-c", "import torch"])
    found = {}
    for name, code in CHILDREN.items():
        seconds = _measure_seconds(
            ["-c", f"import daemon.cli.work\nfrom trainers.quick_imports import quick_imports\n{code}"],
            runs=3,
        )
        found[f"{name} (imports)"] = {"seconds": seconds, "ratio": seconds / least}
    return found


def _measure_seconds(arguments: Sequence[str], runs: int = RUNS) -> float:
    """Return the least CPU seconds of several runs of Python with `arguments`."""
    return min(_run_once(arguments) for _ in range(runs))


def _run_once(arguments: Sequence[str]) -> float:
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | CHILD_ENV,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, _, usage = os.wait4(process.pid, 0)
    return usage.ru_utime + usage.ru_stime
