"""Trainings and evaluations as child processes that outlive a crash of the daemon.

A job is a folder: `job.json` goes in, `progress.jsonl` grows, and `result.json` (or
`failure.json`) is renamed into place last. A child holds the folder's lock from its birth to its
death, inherited from the parent. So after a crash the folder alone tells what is true: a
result is there, or the lock is held (adopt: wait for it), or the child died (start it again; it
resumes from its checkpoint). No job ever runs twice at the same time.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Event
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ValidationError

from daemon.runtime.locks import try_lock
from daemon.runtime.work import Work
from extractors.errors import LearndError
from trainers.job_folder import CHILD_ENV, ProgressLine, write_atomically
from trainers.recovery.guards import describe_progress

OnProgress = Callable[[ProgressLine], None]
MOST_STARTS = 5
"""Starts in a row that lead nowhere."""
REAP_SECONDS = 10.0
POLL_SECONDS = 0.2


class JobFailed(LearndError):
    """A training or evaluation failed; trying it again as it is would fail again."""


class Interrupted(LearndError):
    """The daemon is asked to stop; the job resumes from its checkpoint at the next start."""


def run_job(
    work: Work,
    folder: Path,
    job: BaseModel,
    *,
    stop: Event,
    on_progress: OnProgress,
    secrets: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Run the job in `folder` in a child process, and return its result.

    Adopts a child that runs already, starts one that does not, and starts one that was killed
    again, with the job as it is now. Raises JobFailed with the child's own words, Interrupted once
    `stop` is set. `secrets` reach the child as environment variables, and nothing else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    progress = _Progress(folder / "progress.jsonl")
    while True:
        ended = _read_result(folder)
        if ended is not None:
            return ended
        if stop.is_set():
            raise Interrupted("stopping; the job begins, or goes on, at the next start")
        lock = try_lock(folder / "lock")
        child = _start(work, folder, job, lock, secrets) if lock is not None else None
        try:
            _wait(folder, stop, on_progress, progress)
        finally:
            if child is not None:
                _reap(child)


def _start(
    work: Work, folder: Path, job: BaseModel, lock: int, secrets: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    """Start a child that holds `lock` from its birth on."""
    try:
        _count_start(work, folder)
        write_atomically(folder / "job.json", job.model_dump_json(indent=2))
        # A crash right after the start must not leave the number of an earlier child here.
        (folder / "pid").unlink(missing_ok=True)
        with (folder / "log.txt").open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "learnd", "work", work, str(folder)],
                env=_build_environment() | dict(secrets),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[lock],
            )
        (folder / "pid").write_text(str(child.pid))
        return child
    finally:
        os.close(lock)


def _wait(folder: Path, stop: Event, on_progress: OnProgress, progress: "_Progress") -> None:
    """Return when no child holds the folder's lock any more."""
    while (lock := try_lock(folder / "lock")) is None:
        for line in progress.read_new_lines():
            on_progress(line)
        if _wait_for_stop(folder, stop):
            _terminate(folder)
            _forget_start(folder)
            raise Interrupted("stopping; the job goes on from its last checkpoint at the next start")
    os.close(lock)
    for line in progress.read_new_lines():
        on_progress(line)


def _reap(child: "subprocess.Popen[bytes]") -> None:
    """Take note of a child's end. It has given up its folder, or does so after SIGTERM."""
    with suppress(subprocess.TimeoutExpired):
        child.wait(REAP_SECONDS)


def _wait_for_stop(folder: Path, stop: Event) -> bool:
    """Wait a moment; return whether to stop. Ends the child where this process is ended meanwhile."""
    try:
        return stop.wait(POLL_SECONDS)
    except (KeyboardInterrupt, SystemExit):
        _terminate(folder)
        _forget_start(folder)
        raise


def _terminate(folder: Path) -> None:
    """End the child's process group; it leads a session of its own."""
    try:
        os.killpg(int((folder / "pid").read_text()), signal.SIGTERM)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if lock := try_lock(folder / "lock"):
            os.close(lock)
            return
        time.sleep(POLL_SECONDS)


def _read_result(folder: Path) -> dict[str, Any] | None:
    try:
        result: dict[str, Any] = json.loads((folder / "result.json").read_text("utf-8"))
    except FileNotFoundError:
        pass
    else:
        return result
    try:
        failure = json.loads((folder / "failure.json").read_text("utf-8"))
    except FileNotFoundError:
        return None
    raise JobFailed(f"{failure['error']} (log: {_name_log(folder)})")


def _name_log(folder: Path) -> str:
    """Return the path of a job's log, from the data directory on."""
    return "/".join(["data_dir", *folder.parts[-4:], "log.txt"])


def _count_start(work: Work, folder: Path) -> None:
    """Note a start, and from where it goes on. Raises JobFailed where the last ones led nowhere."""
    starts, now = folder / "starts", describe_progress(folder)
    noted = starts.read_text().splitlines() if starts.exists() else []
    in_vain = [line for line in noted[-MOST_STARTS:] if line.partition(" ")[2] == now]
    if len(in_vain) == MOST_STARTS:
        raise JobFailed(
            f"{work} died {MOST_STARTS} times at {now}, as if killed for memory; see {_name_log(folder)}"
        )
    with starts.open("a") as file:
        file.write(f"{time.time():.0f} {now}\n")


def _forget_start(folder: Path) -> None:
    """We ended the child ourselves: that is no sign of too little memory."""
    starts = folder / "starts"
    if starts.exists():
        starts.write_text("".join(f"{line}\n" for line in starts.read_text().splitlines()[:-1]))


def _build_environment() -> dict[str, str]:
    """This process's environment without our settings: no child needs a secret."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("LEARND_")}
    root = Path(__file__).resolve().parents[2]
    # `-m learnd` must find this checkout, or this wheel, whatever the working directory is.
    package_root = root.parent.parent if root.name == "_app" else root
    # One GPU: TRL's trainers take no more in one process.
    kept["CUDA_VISIBLE_DEVICES"] = kept.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [str(package_root), kept.get("PYTHONPATH")]))
    return kept | CHILD_ENV


class _Progress:
    """Reads the lines that were added to a growing file; a line half written waits."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0

    def read_new_lines(self) -> Iterator[ProgressLine]:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                try:
                    yield ProgressLine.model_validate_json(line)
                except ValidationError:
                    # A child that was killed in the middle of a line; the next one wrote on.
                    continue
