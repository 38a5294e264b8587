"""The suggestion from the curve of a learning-rate range test."""

import math

import pytest

from trainers.trials.rate_range_test import RateUnclear, read_curve

RATES = [10 ** (-6 + 0.1 * number) for number in range(61)]
"""From 1e-6 to 1, ten steps for each factor of ten."""


def compute_loss_at(rate: float) -> float:
    """Flat up to 1e-4, falling to its least at 1e-2, then breaking."""
    fallen = 2.0 / (1 + math.exp(-4 * (math.log10(rate) + 3)))
    return 4.0 - fallen + max(0.0, math.log10(rate) + 2) ** 2 * 8


def test_the_suggested_rate_lies_where_the_loss_falls_well_below_where_it_breaks() -> None:
    test = read_curve(RATES, [compute_loss_at(rate) for rate in RATES], planned=2e-4)
    assert 3e-4 < test.suggested <= test.steepest < 1e-2
    assert test.suggested == min(test.steepest, test.tenth_of_least)
    assert test.planned == 2e-4
    assert [point.learning_rate for point in test.points] == RATES


def test_a_curve_that_never_falls_suggests_nothing() -> None:
    with pytest.raises(RateUnclear, match="never falls by 5%"):
        read_curve(RATES, [4.0 + max(0.0, math.log10(rate) + 2) for rate in RATES], planned=2e-4)


def test_an_easy_first_batch_is_no_fall_and_hides_none() -> None:
    with pytest.raises(RateUnclear, match="never falls by 5%"):
        read_curve(RATES, [0.5, *[0.7] * 60], planned=2e-4)
    losses = [0.5, *[compute_loss_at(rate) for rate in RATES[1:]]]
    assert 3e-4 < read_curve(RATES, losses, planned=2e-4).suggested < 1e-2


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_a_test_that_breaks_at_once_says_so(steps: int) -> None:
    with pytest.raises(RateUnclear, match=f"broke within {steps} steps"):
        read_curve(RATES[:steps], [1.0, 3.0, 2.0, 9.0, 9.0][:steps], planned=2e-4)
