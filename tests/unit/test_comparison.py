"""The numbers behind a verdict, against independent computations."""

from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.comparison import (
    UnpairedOutcomes,
    compare,
    interval,
    items_needed,
    mcnemar,
    pairs,
    smallest_effect,
)


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 40))
def test_the_p_value_is_the_binomial_tail(gained, lost):
    n = gained + lost
    tail = sum(comb(n, k) for k in range(gained, n + 1)) / 2**n
    assert mcnemar(gained, lost) == pytest.approx(tail)


def test_the_p_value_of_the_facts_page():
    assert mcnemar(8, 0) == pytest.approx(0.0039, abs=1e-4)


def test_a_side_compared_with_itself_differs_nowhere():
    outcomes = [True, False, True]
    same = compare(outcomes, outcomes, against="base", sessions="abc", alpha=0.05)
    assert (same.gained, same.lost, same.p_value, same.effect, same.interval) == (0, 0, 1.0, 0.0, (0.0, 0.0))


def test_sides_that_answered_different_items_are_refused():
    with pytest.raises(UnpairedOutcomes):
        pairs([True], [True, False])


def test_the_interval_holds_the_effect_and_comes_out_the_same_again():
    candidate, other = [True] * 30 + [False] * 10, [True] * 20 + [False] * 20
    low, high = interval(candidate, other, range(40))
    assert 0 < low < 0.25 < high < 0.5
    assert (low, high) == interval(candidate, other, range(40))


def test_turns_of_one_session_say_less_than_as_many_sessions():
    candidate, other = [True] * 20 + [False] * 20, [False] * 40
    one_each = interval(candidate, other, range(40))
    ten_sessions = interval(candidate, other, [turn // 4 for turn in range(40)])
    assert ten_sessions[1] - ten_sessions[0] > one_each[1] - one_each[0]
    assert interval(candidate, other, ["one"] * 40) == (-1.0, 1.0)


@pytest.mark.parametrize(("n", "effect"), [(50, 0.20), (100, 0.15), (300, 0.09)])
def test_the_smallest_effect_is_that_of_the_facts_page(n, effect):
    # The page assumes that the sides differ on 0.3 of the items, the effect included.
    assert smallest_effect(n, 0.3 - effect, 0.05) == pytest.approx(effect, abs=0.02)


def test_hardly_any_items_show_nothing():
    assert smallest_effect(0, 0.3, 0.05) == smallest_effect(4, 0.3, 0.05) == 1.0


def test_as_many_items_as_needed_show_the_effect():
    needed = items_needed(0.1, 0.3, 0.05)
    assert smallest_effect(needed, 0.3, 0.05) <= 0.1 + 2e-3
    assert smallest_effect(needed // 2, 0.3, 0.05) > 0.1
