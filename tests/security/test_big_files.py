"""Files that are far too large: commands say so, and never hold them in memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

MEGABYTES = 200
SETTINGS = """\
[[targets]]
tenant = "acme"
agent = "routing"
project = "p"
task = "generation"
base_model = "none"
"""


def run_learnd(folder: Path, *command: str) -> tuple[int, str, int]:
    """Run a command; returns its exit code, what it wrote to stderr, and the most memory it used, in MB."""
    (folder / "learnd.toml").write_text(SETTINGS)
    with (folder / "stderr").open("w+b") as stderr:
        child = subprocess.Popen(
            [sys.executable, "-m", "learnd", *command],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            stderr=stderr,
        )
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        stderr.seek(0)
        return child.returncode, stderr.read().decode(), used.ru_maxrss // 1024


@pytest.mark.parametrize(
    ("begin", "end", "reason"),
    [
        (b"", b"", "line 1 has more than 16 MiB"),
        (b'{"prompt": "', b'", "completion": "b"}\n', "line 1 has more than 16 MiB"),
        (b'{}\n{"prompt": "', b"", "line 2 has more than 16 MiB"),
        (b'[{"prompt": "', b'", "completion": "b"}]', "a JSON array of more than 64 MiB"),
    ],
)
def test_an_import_of_one_huge_line_ends_with_one_sentence(
    tmp_path: Path, begin: bytes, end: bytes, reason: str
) -> None:
    path = tmp_path / "big.jsonl"
    with path.open("wb") as file:
        file.write(begin)
        # A hole in the file, which takes no room on the disk.
        file.seek(MEGABYTES * 2**20, os.SEEK_CUR)
        file.write(end or b"x")
    code, said, megabytes = run_learnd(tmp_path, "data", "import", str(path))
    assert (code, said.count("\n")) == (1, 1)
    assert reason in said
    _, _, without = run_learnd(tmp_path, "data", "imports")
    assert megabytes < without + MEGABYTES / 2


def test_a_reviewed_file_that_is_huge_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "big.jsonl"
    with path.open("wb") as file:
        file.truncate(MEGABYTES * 2**20)
    code, said, megabytes = run_learnd(tmp_path, "approvals", "import", "batch", str(path))
    assert (code, said.count("\n")) == (1, 1)
    assert "more than 64 MiB" in said
    _, _, without = run_learnd(tmp_path, "data", "imports")
    assert megabytes < without + MEGABYTES / 2
