"""Paths and names that look like rich's markup: the command line prints them as they are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

NAME = "[bold red]x :warning: [link=http:evil]y"


def run_learnd(folder: Path, *command: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "learnd", *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "240"},
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.stdout + ran.stderr


@pytest.mark.parametrize("command", ["init", "status", "doctor", "import"])
def test_a_path_is_printed_as_it_is(tmp_path: Path, command: str) -> None:
    if command == "init":
        printed = run_learnd(tmp_path, "init", f"{NAME}.toml")
    elif command == "import":
        run_learnd(tmp_path, "init")
        printed = run_learnd(tmp_path, "data", "import", f"{NAME}.jsonl")
    elif command == "doctor":
        run_learnd(tmp_path, "init", f"{NAME}/learnd.toml")
        printed = run_learnd(tmp_path, "doctor", "-c", f"{NAME}/learnd.toml")
    else:
        printed = run_learnd(tmp_path, "status", "-c", f"{NAME}.toml")
    assert NAME in printed


def test_an_option_that_is_none_is_printed_as_it_is(tmp_path: Path) -> None:
    assert NAME in run_learnd(tmp_path, "data", "export", "--kind", NAME, "x.jsonl")
