"""The folder of a job that runs as a child process: its input, its progress and its outcome.

job.json        what to do, written by the parent
progress.jsonl  a line for each thing that happened, appended
result.json     the result, renamed into place last
failure.json    the reason why the job cannot be done, in words

A run that ends without result.json and failure.json was killed.
"""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import AwareDatetime, ValidationError

from extractors.errors import LearndError
from extractors.values import Value
from trainers.memory import is_out_of_memory

CHILD_ENV = {
    # OpenMP's spinning barriers collapse beside anything else that uses a core.
    "OMP_WAIT_POLICY": "passive",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PYTHONUNBUFFERED": "1",
    # We compile nothing, but bitsandbytes asks for it as it is imported, which loads the compiler: a second.
    "TORCHDYNAMO_DISABLE": "1",
}
"""Environment variables that a training or evaluation child needs before its first import."""

RESULT = "result.json"
JobT = TypeVar("JobT", bound=Value)
Clock = Callable[[], datetime]


class JobUnreadable(LearndError):
    """job.json is missing or is not what this version of learnd writes."""


class Failure(Value):
    """The reason why a job cannot be done."""

    kind: str
    """Name of the error's class."""
    error: str
    """What happened, where, and what to do about it."""


class ProgressLine(Value):
    """One thing that happened in a job."""

    at: AwareDatetime
    stage: str
    """`loading`, `training`, `answering`, …"""
    step: int | None = None
    total: int | None = None
    """Steps of the stage."""
    loss: float | None = None
    validation_loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_per_second: float | None = None
    memory_bytes: int | None = None
    """The peak so far: of the GPU where one is used, else of the process."""
    figures: dict[str, float | None] = {}
    """Metrics of a validation beyond its loss, by the method; None for one that is not a number."""
    message: str = ""
    contender: str = ""
    """The contender that the line is about, in a race."""


class Progress:
    """Appends to a job's progress.jsonl."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self.clock = clock

    def write(self, stage: str, message: str = "", **values: Any) -> None:
        """Append one line in a single write; `values` are further fields of a ProgressLine."""
        line = ProgressLine(at=self.clock(), stage=stage, message=message, **values)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line.model_dump_json(exclude_defaults=True) + "\n")


def run_job(folder: Path, kind: type[JobT], work: Callable[[JobT, Path, Progress], Value]) -> None:
    """Call `work` on the job in `folder` and write result.json; return immediately if it exists.

    A LearndError is written to failure.json, and so is a defect, with its traceback in the log; both end
    the process with status 1. Trouble of the machine (OSError, lack of memory) propagates: it may pass.
    """
    result, failure = folder / RESULT, folder / "failure.json"
    if result.exists():
        return
    failure.unlink(missing_ok=True)
    try:
        job = _read_job(folder / "job.json", kind)
        outcome = work(job, folder, Progress(folder / "progress.jsonl", lambda: datetime.now(UTC)))
    except LearndError as reason:
        write_atomically(
            failure, Failure(kind=type(reason).__name__, error=str(reason)).model_dump_json(indent=2)
        )
        sys.exit(1)
    except (OSError, MemoryError):
        raise
    except Exception as defect:
        if is_out_of_memory(defect):
            raise
        # The process's boundary: a second run of the same job would only fail again.
        message = f"a defect in learnd, please report it: {type(defect).__name__}: {defect}"
        write_atomically(
            failure, Failure(kind=type(defect).__name__, error=message).model_dump_json(indent=2)
        )
        raise
    write_atomically(result, outcome.model_dump_json(indent=2))


def write_atomically(path: Path, text: str) -> None:
    """Write `text` to `path` so that readers find the whole file or none."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, "utf-8")
    temporary.replace(path)


def _read_job(path: Path, kind: type[JobT]) -> JobT:
    try:
        return kind.model_validate_json(path.read_text("utf-8"))
    except (FileNotFoundError, ValidationError) as broken:
        raise JobUnreadable(f"{path}: {broken}; start the cycle again") from broken
