"""A loss that diverges is told from one that only fluctuates."""

import math
import random

import pytest

from trainers.recovery.divergence import IN_A_ROW, LossWatch
from trainers.recovery.fallbacks import TrainingDiverged


def observe(losses: list[float]) -> None:
    watch = LossWatch()
    for step, loss in enumerate(losses, start=1):
        watch.observe(step, loss)


def test_a_loss_that_is_no_number_is_told_at_once() -> None:
    for no_number in (math.nan, math.inf):
        with pytest.raises(TrainingDiverged, match="at step 3") as diverged:
            observe([2.0, 1.9, no_number])
        assert diverged.value.good_until == 2


def test_a_loss_that_loses_what_it_gained_is_told_with_the_step_where_it_was_best() -> None:
    falling = [3.0 - 0.05 * step for step in range(40)]
    with pytest.raises(TrainingDiverged, match=r"risen from 1\.\d+ at step 4\d") as diverged:
        observe([*falling, *[2.8] * 50])
    assert 40 <= diverged.value.good_until <= 41


def test_a_noisy_loss_near_zero_is_no_divergence() -> None:
    dice = random.Random(0)
    falling = [3.0 * 0.8**step for step in range(30)]
    observe([*falling, *(0.002 * dice.random() ** 4 * 50 for _ in range(200))])


def test_a_few_hard_batches_are_no_divergence() -> None:
    falling = [3.0 - 0.05 * step for step in range(40)]
    observe([*falling, *[5.0] * (IN_A_ROW // 2), *[1.0] * 40])


def test_a_training_that_goes_on_and_breaks_at_once_is_told() -> None:
    with pytest.raises(TrainingDiverged, match="risen from 0"):
        observe([0.3, 0.3, 0.35, 6.0, 9.0, *[4.0] * 30])
