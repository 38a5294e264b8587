"""Recovery of a training: down the ladder, back to a checkpoint, or an end with a reason."""

import json
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from trainers.job_folder import Progress
from trainers.planning.limits import Limits
from trainers.recovery.fallbacks import Attempt, MemoryRules, OutOfMemory, TrainingDiverged
from trainers.recovery.guards import RunGuard, train_with_recovery

FIRST = Attempt(micro_batch=4, accumulation=1, checkpointing=False, quantization=None)


def open_guard(folder: Path) -> RunGuard:
    progress = Progress(folder / "progress.jsonl", lambda: datetime.now(UTC))
    return RunGuard(folder, FIRST, progress, Limits(max_minutes=5))


def train_guarded(folder: Path, train_once: Callable[[Attempt], Any], **rules: Any) -> Any:
    return train_with_recovery(
        open_guard(folder), train_once, checkpoints=folder / "checkpoints", rules=MemoryRules(**rules)
    )


def read_messages(folder: Path) -> list[str]:
    lines = (folder / "progress.jsonl").read_text().splitlines()
    return [json.loads(line)["message"] for line in lines]


def write_checkpoint(folder: Path, step: int, *, best: int | None, weight: float = 1.0) -> None:
    """Write a checkpoint like transformers' trainer, as far as it is read."""
    made = folder / "checkpoints" / f"checkpoint-{step}"
    made.mkdir(parents=True)
    save_file({"weight": torch.tensor([weight])}, made / "adapter_model.safetensors")
    (made / "trainer_state.json").write_text(json.dumps({"best_global_step": best}))
    (made / "whole").touch()


def list_checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def need_more_than(batch: int) -> Callable[[Attempt], Attempt]:
    """Make a training that asks torch for more memory than there is, unless its micro-batch is small."""

    def train(attempt: Attempt) -> Attempt:
        torch.empty(2**58 if attempt.micro_batch > batch else 8, dtype=torch.uint8)
        return attempt

    return train


def test_a_training_without_trouble_is_left_alone(tmp_path: Path) -> None:
    assert train_guarded(tmp_path, lambda attempt: attempt) == FIRST
    assert not (tmp_path / "progress.jsonl").exists()


def test_too_little_memory_is_met_by_the_next_rung_and_said(tmp_path: Path) -> None:
    fits = train_guarded(tmp_path, need_more_than(batch=1))
    assert (fits.micro_batch, fits.accumulation, fits.checkpointing) == (1, 4, False)
    assert len(read_messages(tmp_path)) == 2
    assert "DefaultCPUAllocator" in read_messages(tmp_path)[0]
    assert read_messages(tmp_path)[0].endswith(
        "with 4 × 1 examples a step: going on with 2 × 2 examples a step"
    )
    assert list(open_guard(tmp_path).state.recoveries) == read_messages(tmp_path)


def test_where_nothing_is_left_the_training_fails_with_advice(tmp_path: Path) -> None:
    with pytest.raises(
        OutOfMemory, match=r"1 × 4 examples a step, activation checkpointing, .*lower `max_length`"
    ):
        train_guarded(tmp_path, need_more_than(batch=0), may_quantize=False)
    with pytest.raises(OutOfMemory):
        train_guarded(tmp_path, need_more_than(batch=0), may_quantize=False)
    assert len(read_messages(tmp_path)) == 3  # the second run began on the last rung


def test_any_other_error_is_no_reason_to_try_again(tmp_path: Path) -> None:
    def fail(attempt: Attempt) -> None:  # noqa: ARG001
        torch.ones(2, 3) @ torch.ones(2, 3)

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        train_guarded(tmp_path, fail)
    assert open_guard(tmp_path).state.alive is None


def diverge(until: float) -> Callable[[Attempt], Attempt]:
    def train(attempt: Attempt) -> Attempt:
        if attempt.rate_scale > until:
            raise TrainingDiverged("the loss is nan at step 31", good_until=30)
        return attempt

    return train


def test_a_divergence_goes_back_to_the_best_checkpoint_at_a_tenth_of_the_rate(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        write_checkpoint(tmp_path, step, best=20)
    assert train_guarded(tmp_path, diverge(until=0.5)).rate_scale == 0.1
    assert list_checkpoints(tmp_path) == ["checkpoint-20"]
    assert read_messages(tmp_path) == [
        "the loss is nan at step 31: back to checkpoint-20, at 0.1 of the learning rate"
    ]


def test_without_validation_the_last_finite_checkpoint_before_the_rise_is_good(tmp_path: Path) -> None:
    for step, weight in ((10, 1.0), (20, 1.0), (30, float("nan")), (40, 1.0)):
        write_checkpoint(tmp_path, step, best=None, weight=weight)
    train_guarded(tmp_path, diverge(until=0.5))
    assert list_checkpoints(tmp_path) == ["checkpoint-20"]


def test_a_training_that_diverges_at_a_hundredth_of_the_rate_fails_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingDiverged, match=r"the loss is nan at step 31, .*0.01 .*after 2 rollbacks; lower"
    ):
        train_guarded(tmp_path, diverge(until=0))
    assert [said.split(": ")[1] for said in read_messages(tmp_path)] == [
        "back to the start, at 0.1 of the learning rate",
        "back to the start, at 0.01 of the learning rate",
    ]


def test_time_goes_on_counting_over_starts(tmp_path: Path) -> None:
    open_guard(tmp_path).save()
    state = json.loads((tmp_path / "guards.json").read_text()) | {"seconds": 299.0}
    (tmp_path / "guards.json").write_text(json.dumps(state))
    again = open_guard(tmp_path)
    assert 0 < again.measure_seconds_left() <= 1
    again.save()
    assert open_guard(tmp_path).state.seconds >= 299


def kill_child(folder: Path, killed_by: signal.Signals) -> int:
    """Let a forked process train until a signal ends it; return the signal."""
    pid = os.fork()
    if pid == 0:
        try:
            train_guarded(folder, lambda _: os.kill(os.getpid(), killed_by))
        finally:
            os._exit(0)
    return os.WTERMSIG(os.waitpid(pid, 0)[1])


def test_a_child_that_is_killed_twice_without_progress_goes_one_rung_down(tmp_path: Path) -> None:
    assert kill_child(tmp_path, signal.SIGKILL) == signal.SIGKILL
    assert kill_child(tmp_path, signal.SIGKILL) == signal.SIGKILL
    assert not (tmp_path / "progress.jsonl").exists()  # one death may have any reason
    assert train_guarded(tmp_path, lambda attempt: attempt.micro_batch) == 2
    assert "killed 2 times without a new checkpoint" in read_messages(tmp_path)[0]


def test_a_child_that_is_killed_after_a_new_checkpoint_goes_on_as_it_was(tmp_path: Path) -> None:
    for step in (10, 20):
        assert kill_child(tmp_path, signal.SIGKILL) == signal.SIGKILL
        write_checkpoint(tmp_path, step, best=None)
    assert train_guarded(tmp_path, lambda attempt: attempt) == FIRST


def test_a_child_that_the_kernel_killed_for_memory_goes_one_rung_down_at_once(tmp_path: Path) -> None:
    kill_child(tmp_path, signal.SIGKILL)
    # No test may have the kernel kill for memory: whom it takes is its own choice. So its count, as the
    # dead child found it, is set back by one.
    state = json.loads((tmp_path / "guards.json").read_text())
    if state["alive"]["memory_kills"] is None:
        pytest.skip("this kernel does not say how often it killed for memory")
    state["alive"]["memory_kills"] -= 1
    (tmp_path / "guards.json").write_text(json.dumps(state))
    assert train_guarded(tmp_path, lambda attempt: attempt.micro_batch) == 2
    assert "the kernel killed the process for memory" in read_messages(tmp_path)[0]


def test_being_asked_to_stop_is_no_death(tmp_path: Path) -> None:
    for _ in range(3):
        assert kill_child(tmp_path, signal.SIGTERM) == signal.SIGTERM
    assert train_guarded(tmp_path, lambda attempt: attempt) == FIRST
