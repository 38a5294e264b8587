"""Recovery of a training that runs out of memory, diverges or was killed, by the rules in `fallbacks.py`.

The current attempt of a run is kept in its folder (`guards.json`), so a child that is started again
continues with it. The kernel kills a process that takes too much memory without a word: the next child
notices by the kernel's own count of such kills, or by a second death without a new checkpoint.
"""

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from extractors.values import Value
from trainers.job_folder import Progress, write_atomically
from trainers.memory import is_out_of_memory, release_memory
from trainers.planning.limits import Limits
from trainers.recovery.checkpoints import CHECKPOINTS, list_whole_checkpoints, read_step
from trainers.recovery.fallbacks import (
    MAX_ROLLBACKS,
    Attempt,
    MemoryRules,
    OutOfMemory,
    TrainingDiverged,
    lower_rate,
    reduce_memory,
)

T = TypeVar("T")

STATE = "guards.json"
DEATHS_FOR_MEMORY = 2
"""Deaths of children without a new checkpoint that count as lack of memory."""


class LifeSign(Value):
    """Written by a child while it works; if the next child finds it, that child was killed."""

    boot: str
    """Id of the machine's boot during which it began."""
    memory_kills: int | None
    """Processes that the kernel had killed for memory when it began; None if the kernel does not count."""


class GuardState(Value):
    """The content of guards.json."""

    attempt: Attempt
    alive: LifeSign | None = None
    deaths: int = 0
    """Deaths of children at this attempt since the last new checkpoint."""
    reached: int = 0
    """The step of the newest checkpoint at the last death."""
    seconds: float = 0.0
    """Time that the run has taken so far."""
    recoveries: tuple[str, ...] = ()
    """Each change of the attempt and each early end, in words."""
    stopped: str = ""
    """Why the training is not to go on, in words; empty where it may."""


class Deaths(Value):
    """The deaths of children at one piece of work."""

    count: int = 0
    alive: LifeSign | None = None


def is_begun(folder: Path) -> bool:
    """Return True if a child has worked in the run's folder before."""
    return (folder / STATE).exists()


def read_seconds(folder: Path) -> float:
    """Return the seconds that the run in `folder` has taken so far; 0 where none was begun."""
    return _read_state(folder).seconds if is_begun(folder) else 0.0


def describe_progress(folder: Path) -> str:
    """Describe how far the run in `folder` has come; a start that does not change this made no progress.

    A race has a training in each of several folders below its own.
    """
    trainings = sorted({folder, *(state.parent for state in folder.rglob(STATE))})
    return "; ".join(map(_describe_training, trainings))


def _describe_training(folder: Path) -> str:
    reached = max(map(read_step, list_whole_checkpoints(folder / CHECKPOINTS)), default=0)
    attempt = _read_state(folder).attempt if is_begun(folder) else "not begun"
    return f"step {reached}, {attempt}"


def find_begun_attempt(folder: Path) -> Attempt | None:
    """Return the attempt of a training that was begun in `folder` or below; None where there is none."""
    begun = next(folder.rglob(STATE), None)
    return _read_state(begun.parent).attempt if begun else None


def _read_state(folder: Path) -> GuardState:
    return GuardState.model_validate_json((folder / STATE).read_text("utf-8"))


class RunGuard:
    """Keeps a run's attempt, recoveries and time in guards.json."""

    def __init__(
        self, folder: Path, first: Attempt, progress: Progress, limits: Limits, spent: float = 0.0
    ) -> None:
        """`first` is the attempt of a new run; `spent` are the seconds that other runs took of the limits."""
        self._path = folder / STATE
        self._progress = progress
        self._spent = spent
        self.limits = limits
        self.state = _read_state(folder) if is_begun(folder) else GuardState(attempt=first)
        self._before = self.state.seconds
        self._began = time.monotonic()

    def measure_seconds(self) -> float:
        """Return the run's time so far, with that of killed children up to their last checkpoint."""
        return self._before + time.monotonic() - self._began

    def measure_seconds_left(self) -> float:
        """Return the time that the run may still take; negative when its time is up."""
        return self.limits.seconds - self._spent - self.measure_seconds()

    def report(self, recovery: str) -> None:
        """Report a change of the attempt, or an early end, in the progress and in the state."""
        self._progress.write("guarding", recovery)
        self.save(recoveries=(*self.state.recoveries, recovery))

    def stop(self, reason: str) -> None:
        """Report that the training ends early, for good."""
        self.report(reason)
        self.save(stopped=reason)

    def save(self, **changes: Any) -> None:
        """Write the state with `changes` and the time."""
        self.state = self.state.model_copy(update={**changes, "seconds": self.measure_seconds()})
        write_atomically(self._path, self.state.model_dump_json(indent=2))

    def switch_to(self, following: Attempt, reason: str) -> None:
        """Make `following` the current attempt, and report the reason."""
        self.report(reason)
        self.save(attempt=following, deaths=0, reached=0, stopped="")


def train_with_recovery(
    guard: RunGuard, train_once: Callable[[Attempt], T], *, checkpoints: Path, rules: MemoryRules
) -> T:
    """Call `train_once` with one attempt after another until one finishes; return its result.

    `train_once` continues from the newest checkpoint in `checkpoints`. It raises TrainingDiverged, or its
    libraries' errors for lack of memory. Raises OutOfMemory or TrainingDiverged if no attempt is left.
    """
    _handle_earlier_death(guard, checkpoints, rules)
    while True:
        outcome = _try_attempt(guard, train_once)
        if isinstance(outcome, _MemoryShortage):
            _step_down(guard, rules, f"out of memory ({outcome.message})")
        elif isinstance(outcome, TrainingDiverged):
            _roll_back(guard, checkpoints, outcome)
        else:
            return outcome


class _MemoryShortage(Value):
    """An attempt had too little memory. Its error is not kept: it would keep the memory in use."""

    message: str


def _try_attempt(
    guard: RunGuard, train_once: Callable[[Attempt], T]
) -> T | _MemoryShortage | TrainingDiverged:
    try:
        with _mark_alive(lambda life: guard.save(alive=life)):
            return train_once(guard.state.attempt)
    except TrainingDiverged as diverged:
        outcome: _MemoryShortage | TrainingDiverged = TrainingDiverged(str(diverged), diverged.good_until)
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        message = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        outcome = _MemoryShortage(message=message)
    release_memory()
    return outcome


def _handle_earlier_death(guard: RunGuard, checkpoints: Path, rules: MemoryRules) -> None:
    """Step down if the child before this one was killed for memory."""
    life, before = guard.state.alive, guard.state
    if life is None:
        return
    reached = max(map(read_step, list_whole_checkpoints(checkpoints)), default=0)
    deaths = before.deaths + 1 if reached == before.reached else 1
    guard.save(alive=None, deaths=deaths, reached=reached)
    if _was_killed_for_memory(life):
        _step_down(guard, rules, "the kernel killed the process for memory")
    elif deaths >= DEATHS_FOR_MEMORY:
        _step_down(guard, rules, f"killed {deaths} times without a new checkpoint, as if for memory")


def _step_down(guard: RunGuard, rules: MemoryRules, cause: str) -> None:
    attempt = guard.state.attempt
    following = reduce_memory(attempt, rules)
    if following is None:
        raise OutOfMemory(
            f"{cause}, with {attempt}, and nothing is left to try; lower `max_length` or `lora_rank` in the "
            "target's hyperparameters, take a smaller `base_model`, or train where there is more memory"
        )
    guard.switch_to(following, f"{cause}, with {attempt}: going on with {following}")


def _roll_back(guard: RunGuard, checkpoints: Path, diverged: TrainingDiverged) -> None:
    attempt = guard.state.attempt
    following = lower_rate(attempt)
    if following is None:
        raise TrainingDiverged(
            f"{diverged}, with {attempt}, after {MAX_ROLLBACKS} rollbacks; "
            "lower `learning_rate` in the target's hyperparameters, and look at the data",
            diverged.good_until,
        )
    good = find_good_checkpoint(checkpoints, diverged.good_until)
    for checkpoint in checkpoints.glob("checkpoint-*"):
        if checkpoint != good:
            shutil.rmtree(checkpoint)
    back = f"back to {good.name}" if good else "back to the start"
    guard.switch_to(following, f"{diverged}: {back}, at {following.rate_scale:g} of the learning rate")


def find_good_checkpoint(folder: Path, good_until: int) -> Path | None:
    """Find the checkpoint with the best validation, or else the newest up to step `good_until`.

    Checkpoints with a weight that is not finite are ignored. Returns None if no checkpoint is left.
    """
    whole = [checkpoint for checkpoint in list_whole_checkpoints(folder) if _is_finite(checkpoint)]
    if not whole:
        return None
    state = json.loads((whole[-1] / "trainer_state.json").read_text("utf-8"))
    best = [checkpoint for checkpoint in whole if read_step(checkpoint) == state["best_global_step"]]
    good = best or [checkpoint for checkpoint in whole if read_step(checkpoint) <= good_until]
    return good[-1] if good else None


def _is_finite(checkpoint: Path) -> bool:
    from safetensors.torch import load_file

    weights = [load_file(path) for path in checkpoint.rglob("*.safetensors")]
    return all(tensor.isfinite().all() for file in weights for tensor in file.values())


@contextmanager
def count_deaths(file: Path) -> Iterator[int]:
    """Give the number of children that were killed in this block; `file` keeps it until the block ends."""
    before = Deaths.model_validate_json(file.read_text("utf-8")) if file.exists() else Deaths()
    count = before.count + (before.alive is not None)
    try:
        with _mark_alive(
            lambda life: write_atomically(file, Deaths(count=count, alive=life).model_dump_json())
        ):
            yield count
    finally:
        file.unlink()


@contextmanager
def _mark_alive(keep: Callable[[LifeSign | None], None]) -> Iterator[None]:
    """Let `keep` write a sign of life that only a kill leaves behind; a request to stop removes it."""
    keep(LifeSign(boot=_read_boot_id(), memory_kills=_count_memory_kills()))

    def stop(*_: object) -> None:
        keep(None)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)

    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if in_main else None
    try:
        yield
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)
        keep(None)


def _was_killed_for_memory(life: LifeSign) -> bool:
    """Return True if the kernel has killed any process for memory since then; it does not say which."""
    before, now = life.memory_kills, _count_memory_kills()
    return before is not None and now is not None and now > before and life.boot == _read_boot_id()


def _count_memory_kills() -> int | None:
    """Count the processes that the kernel has killed for memory since boot; None if it does not say."""
    try:
        counters = Path("/proc/vmstat").read_text()
    except OSError:
        return None
    return next(
        (int(line.split()[1]) for line in counters.splitlines() if line.startswith("oom_kill ")), None
    )


def _read_boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
