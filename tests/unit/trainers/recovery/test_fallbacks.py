"""The next attempt after a failure, and the limits of a run."""

import errno
import math

import pytest
import torch

from trainers.memory import is_out_of_memory
from trainers.planning.hyperparameters import Hyperparameters
from trainers.planning.limits import Limits
from trainers.recovery.fallbacks import Attempt, MemoryRules, build_first_attempt, lower_rate, reduce_memory

PLANNED = Hyperparameters(batch_size=8, gradient_accumulation=1, learning_rate=1e-3)


def list_rungs(first: Attempt, rules: MemoryRules) -> list[str]:
    """List each following attempt in words, until nothing is left."""
    rungs, attempt = [], first
    while (following := reduce_memory(attempt, rules)) is not None:
        attempt = following
        rungs.append(str(attempt))
    return rungs


def test_memory_is_saved_by_smaller_batches_then_by_computing_twice_then_by_four_bits() -> None:
    assert list_rungs(build_first_attempt(PLANNED, on_cpu=True), MemoryRules()) == [
        "4 × 2 examples a step",
        "2 × 4 examples a step",
        "1 × 8 examples a step",
        "1 × 8 examples a step, activation checkpointing",
        "1 × 8 examples a step, activation checkpointing, the base in 4 bits",
    ]


def test_a_gpu_computes_activations_twice_from_the_start() -> None:
    assert build_first_attempt(PLANNED, on_cpu=False).checkpointing


def test_no_rung_goes_below_the_least_batch_or_quantises_where_it_must_not() -> None:
    rules = MemoryRules(least_micro_batch=2, may_quantize=False)
    assert list_rungs(build_first_attempt(PLANNED, on_cpu=True), rules)[-1] == (
        "2 × 4 examples a step, activation checkpointing"
    )


@pytest.mark.parametrize(
    ("batch", "accumulation", "parts"),
    [
        (6, 1, ["3 × 2", "1 × 6"]),
        (12, 1, ["6 × 2", "3 × 4", "1 × 12"]),
        (10, 2, ["5 × 4", "2 × 10", "1 × 20"]),
        (7, 1, ["1 × 7"]),
    ],
)
def test_every_rung_has_as_many_examples_a_step_as_was_planned(
    batch: int, accumulation: int, parts: list[str]
) -> None:
    planned = Hyperparameters(batch_size=batch, gradient_accumulation=accumulation)
    rungs = list_rungs(build_first_attempt(planned, on_cpu=False), MemoryRules(may_quantize=False))
    assert rungs == [f"{each} examples a step, activation checkpointing" for each in parts]


def test_an_attempt_keeps_the_examples_of_a_step_and_scales_the_rate() -> None:
    attempt = build_first_attempt(PLANNED, on_cpu=True)
    lower = lower_rate(attempt)
    assert lower is not None
    smaller = reduce_memory(lower, MemoryRules())
    assert smaller is not None
    tried = smaller.apply_to(PLANNED)
    assert (tried.batch_size, tried.gradient_accumulation) == (4, 2)
    assert tried.learning_rate == pytest.approx(1e-4)
    assert tried.epochs == PLANNED.epochs


def test_the_rate_is_lowered_twice() -> None:
    once = lower_rate(build_first_attempt(PLANNED, on_cpu=True))
    assert once is not None
    twice = lower_rate(once)
    assert twice is not None
    assert twice.rate_scale == pytest.approx(0.01)
    assert lower_rate(twice) is None


def test_lack_of_memory_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as too_much:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(too_much.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory"))
    with pytest.raises(RuntimeError) as wrong_shapes:
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert not is_out_of_memory(wrong_shapes.value)
    assert not is_out_of_memory(OSError(errno.ENOSPC, "No space left on device"))


def test_the_narrower_of_time_and_cost_limits_a_run_and_is_named() -> None:
    assert Limits().seconds == math.inf
    assert Limits(max_cost=3).seconds == math.inf  # without a price there is no cost
    assert Limits(max_minutes=10).seconds == 600
    both = Limits(max_minutes=120, max_cost=3, price_per_hour=6)
    assert both.seconds == 1800
    assert str(both) == "max_cost = 3 at 6 an hour"
    assert str(Limits(max_minutes=10, max_cost=3, price_per_hour=6)) == "max_minutes = 10"
