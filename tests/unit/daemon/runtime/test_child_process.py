"""Jobs whose child processes die: how often they are started again. Small scripts stand in for children."""

import os
import signal
import stat
import sys
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from daemon.runtime.child_process import MOST_STARTS, JobFailed, run_job
from daemon.runtime.locks import try_lock
from daemon.runtime.work import Work
from extractors.values import Value
from trainers.job_folder import ProgressLine


class Job(Value):
    what: str


def install_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Make every child run `script`, in which $folder is the folder of the job."""
    path = tmp_path / "child.sh"
    path.write_text(f'#!/bin/sh\nfolder="$5"\n{script}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(path))


def run(folder: Path, what: str = "anything") -> dict[str, Any]:
    return run_job(Work.TRAIN, folder, Job(what=what), stop=Event(), on_progress=lambda _: None)


def count_starts(folder: Path) -> int:
    return len((folder / "starts").read_text().splitlines())


def test_a_child_that_dies_again_and_again_where_it_was_fails_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_child(tmp_path, monkeypatch, "kill -9 $$")
    with pytest.raises(JobFailed, match=f"train died {MOST_STARTS} times at step 0, not begun"):
        run(tmp_path / "run")
    assert count_starts(tmp_path / "run") == MOST_STARTS


def test_a_child_that_dies_often_but_gets_further_each_time_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
        step=$(ls "$folder/checkpoints" 2>/dev/null | wc -l)
        if [ "$step" = 8 ]; then echo '{"steps": 8}' > "$folder/result.json"; exit; fi
        mkdir -p "$folder/checkpoints/checkpoint-$step"; touch "$folder/checkpoints/checkpoint-$step/whole"
        kill -9 $$"""
    install_child(tmp_path, monkeypatch, script)
    assert run(tmp_path / "run") == {"steps": 8}
    assert count_starts(tmp_path / "run") == 9


def test_a_race_that_dies_often_but_in_another_contender_each_time_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = '{"micro_batch": 1, "accumulation": 1, "checkpointing": false, "quantization": null}'
    script = f"""
        begun=$(ls "$folder/contenders" 2>/dev/null | wc -l)
        if [ "$begun" = 8 ]; then echo '{{"contenders": 8}}' > "$folder/result.json"; exit; fi
        mkdir -p "$folder/contenders/$begun"
        echo '{{"attempt": {attempt}}}' > "$folder/contenders/$begun/guards.json"
        kill -9 $$"""
    install_child(tmp_path, monkeypatch, script)
    assert run(tmp_path / "run") == {"contenders": 8}
    assert count_starts(tmp_path / "run") == 9


def test_a_child_that_is_started_again_is_given_the_job_as_it_is_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    install_child(tmp_path, monkeypatch, "kill -9 $$")
    with pytest.raises(JobFailed):
        run(folder)
    (folder / "starts").unlink()
    install_child(tmp_path, monkeypatch, 'cp "$folder/job.json" "$folder/result.json"')
    assert run(folder, what="something else") == {"what": "something else"}


def test_a_child_sees_one_gpu_and_no_setting_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    monkeypatch.setenv("LEARND_PHOENIX__API_KEY", "secret")
    script = 'echo "{\\"gpu\\": \\"$CUDA_VISIBLE_DEVICES\\", \\"key\\": \\"$LEARND_PHOENIX__API_KEY\\"}"'
    install_child(tmp_path, monkeypatch, f'{script} > "$folder/result.json"')
    assert run(tmp_path / "run") == {"gpu": "2", "key": ""}


def test_a_line_with_a_figure_that_is_no_number_is_reported_and_half_a_line_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON has no NaN, so it is written as null; a kill in the middle of a line leaves half of it."""
    validation = '"stage": "training", "step": 2, "figures": {"separation": null}}'
    script = f"""
        echo '{{"at": "2026-01-01T' > "$folder/progress.jsonl"
        echo '{{"at": "2026-01-01T00:00:00Z", {validation}' >> "$folder/progress.jsonl"
        cp "$folder/job.json" "$folder/result.json"
    """
    install_child(tmp_path, monkeypatch, script)
    lines: list[ProgressLine] = []
    run_job(Work.TRAIN, tmp_path / "run", Job(what="anything"), stop=Event(), on_progress=lines.append)
    assert [(line.step, line.figures) for line in lines] == [(2, {"separation": None})]


def test_a_child_ends_with_a_process_that_is_told_to_end_while_it_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_child(tmp_path, monkeypatch, "sleep 60")

    def end(*_: object) -> None:
        raise SystemExit(143)

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        with pytest.raises(SystemExit):
            run(tmp_path / "run")
    finally:
        signal.signal(signal.SIGALRM, before)
    lock = try_lock(tmp_path / "run" / "lock")
    assert lock is not None, "the child still holds its folder"
    os.close(lock)
