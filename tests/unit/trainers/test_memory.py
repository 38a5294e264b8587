"""Free memory and the peak of a process, as Linux reports them."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainers.memory import read_cgroup_headroom

ROOT = Path(__file__).resolve().parents[3]
MB = 10**6


def write_group(folder: Path, most: str, now: int, cache: int = 0) -> None:
    """Write a control group's files as the kernel does (Documentation/admin-guide/cgroup-v2.rst)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{most}\n")
    (folder / "memory.current").write_text(f"{now}\n")
    (folder / "memory.stat").write_text(f"anon {now - cache}\nactive_file {cache - 1}\ninactive_file 1\n")


def write_process(folder: Path, path: str) -> Path:
    folder.mkdir()
    (folder / "cgroup").write_text(f"4:memory:/other\n0::{path}\n")
    return folder


def test_the_narrowest_group_above_a_process_counts_and_files_that_were_read_do_not(tmp_path: Path) -> None:
    groups, process = tmp_path / "cgroup", write_process(tmp_path / "self", "/system.slice/learnd.service")
    write_group(groups / "system.slice", "max", 900 * MB)
    write_group(groups / "system.slice/learnd.service", str(1000 * MB), 700 * MB, cache=500 * MB)
    assert read_cgroup_headroom(process, groups) == 800 * MB
    write_group(groups / "system.slice", str(1500 * MB), 900 * MB)
    assert read_cgroup_headroom(process, groups) == 600 * MB
    write_group(groups / "system.slice", "max", 900 * MB)
    write_group(groups, str(1000 * MB), 990 * MB)  # a container's own root
    assert read_cgroup_headroom(process, groups) == 10 * MB


@pytest.mark.parametrize("path", ["/", "/docker/abc", "/../up"])
def test_where_no_group_is_seen_there_is_no_limit(path: str, tmp_path: Path) -> None:
    process = write_process(tmp_path / "self", path)
    assert read_cgroup_headroom(process, tmp_path / "cgroup") == math.inf
    assert read_cgroup_headroom(tmp_path / "none", tmp_path / "cgroup") == math.inf


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says so")
def test_a_child_s_peak_is_its_own_and_not_its_parent_s() -> None:
    # `ru_maxrss` is carried over fork and exec, from a daemon that has loaded much.
    child = "from trainers.memory import measure_peak_memory; print(measure_peak_memory('cpu'))"
    parent = f"""
import subprocess, sys
held = b"x" * {500 * MB}
subprocess.run([sys.executable, "-c", {child!r}], check=True, start_new_session=True, pass_fds=[1])
"""
    said = subprocess.run(
        [sys.executable, "-c", parent],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert MB < int(said.stdout) < 100 * MB
