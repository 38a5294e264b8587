"""The numbers behind a verdict, against independent computations."""

from itertools import product
from math import comb, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import norm, permutation_test
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from evaluation.verdict.paired_tests import (
    Gain,
    PairedScores,
    UnpairedOutcomes,
    adjust_by_holm,
    bootstrap_interval,
    compare_scores,
    compute_gain,
    compute_least_difference,
    compute_mcnemar_p,
    compute_sign_flip_p,
    count_effective_items,
    find_items_needed,
    find_smallest_effect,
)


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 40))
def test_the_p_value_is_the_binomial_tail(gained, lost):
    n = gained + lost
    tail = sum(comb(n, k) for k in range(gained, n + 1)) / 2**n
    assert compute_mcnemar_p(gained, lost) == pytest.approx(tail)


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 40))
def test_twice_the_smaller_p_value_is_that_of_statsmodels(gained, lost):
    two_sided = statsmodels_mcnemar([[5, gained], [lost, 5]], exact=True).pvalue
    assert min(
        1.0, 2 * min(compute_mcnemar_p(gained, lost), compute_mcnemar_p(lost, gained))
    ) == pytest.approx(two_sided)


@settings(deadline=None)
@given(st.lists(st.integers(-4, 4), max_size=9))
def test_the_sign_flip_test_counts_all_signs(changes):
    total = sum(changes)
    signs = list(product((1, -1), repeat=len(changes)))
    as_large = sum(sum(s * c for s, c in zip(each, changes, strict=True)) >= total for each in signs)
    assert compute_sign_flip_p(changes) == pytest.approx(as_large / len(signs))


def test_the_sign_flip_test_agrees_with_a_permutation_test_on_graded_outcomes():
    rng = np.random.default_rng(1)
    new, old = rng.random(60), rng.random(60) - 0.08
    resampled = permutation_test(
        (new, old),
        lambda x, y, axis: (x - y).mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        alternative="greater",
        n_resamples=20_000,
        rng=rng,
    ).pvalue
    ours = compute_gain(PairedScores(new.tolist(), old.tolist(), range(60))).p_better
    assert ours == pytest.approx(resampled, abs=0.01)


def test_small_weighted_differences_count():
    found = compute_gain(PairedScores([0.504] * 20, [0.5] * 20, range(20), [1.0] * 20))
    assert found.p_better == pytest.approx(2**-20)
    among = compute_gain(PairedScores([0.504] * 40 + [1.0] * 2 + [0.0] * 2, [0.5] * 44, range(44)))
    without = compute_gain(PairedScores([0.5] * 40 + [1.0] * 2 + [0.0] * 2, [0.5] * 44, range(44)))
    assert among.p_better < without.p_better


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_p_values_of_several_tests_are_adjusted_as_statsmodels_does(p_values):
    assert adjust_by_holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_the_p_value_of_the_facts_page():
    assert compute_mcnemar_p(8, 0) == pytest.approx(0.0039, abs=1e-4)


def test_a_side_compared_with_itself_differs_nowhere():
    outcomes = [True, False, True]
    same = compare_scores(PairedScores(outcomes, outcomes, "abc"), against="base", level=0.05)
    assert (same.gained, same.lost, same.p_value, same.effect, same.interval) == (0, 0, 1.0, 0.0, (0.0, 0.0))


def test_sides_that_answered_different_items_are_refused():
    with pytest.raises(UnpairedOutcomes):
        PairedScores([1.0], [1.0, 0.0], range(2))


def test_the_interval_holds_the_effect_and_comes_out_the_same_again():
    candidate, other = [True] * 30 + [False] * 10, [True] * 20 + [False] * 20
    low, high = bootstrap_interval(PairedScores(candidate, other, range(40)))
    assert 0 < low < 0.25 < high < 0.5
    assert (low, high) == bootstrap_interval(PairedScores(candidate, other, range(40)))


def test_the_interval_is_that_of_a_plain_bootstrap():
    rng = np.random.default_rng(2)
    new, old, weights = rng.random(120), rng.random(120), rng.uniform(0.5, 1.5, 120)
    drawn = rng.integers(0, 120, size=(20_000, 120))
    means = ((new - old) * weights)[drawn].sum(axis=1) / weights[drawn].sum(axis=1)
    ours = bootstrap_interval(PairedScores(new.tolist(), old.tolist(), range(120), weights.tolist()))
    assert ours == pytest.approx(tuple(np.quantile(means, (0.025, 0.975))), abs=0.012)


def test_turns_of_one_session_say_less_than_as_many_sessions():
    candidate, other = [True] * 20 + [False] * 20, [False] * 40
    one_each = bootstrap_interval(PairedScores(candidate, other, range(40)))
    ten_sessions = bootstrap_interval(PairedScores(candidate, other, [turn // 4 for turn in range(40)]))
    assert ten_sessions[1] - ten_sessions[0] > one_each[1] - one_each[0]
    assert bootstrap_interval(PairedScores(candidate, other, ["one"] * 40)) == (-1.0, 1.0)


@pytest.mark.parametrize(("n", "effect"), [(50, 0.20), (100, 0.15), (300, 0.09)])
def test_the_smallest_effect_is_that_of_the_facts_page(n, effect):
    # The page assumes that the sides differ on 0.3 of the items, the effect included.
    assert find_smallest_effect(n, 0.3 - effect, 0.05) == pytest.approx(effect, abs=0.02)


def test_turns_that_change_together_count_as_one():
    new, old = [1.0] * 20 + [0.0] * 20, [0.0] * 40
    apart = compute_gain(PairedScores(new, old, range(40)))
    together = compute_gain(PairedScores(new, old, [turn // 10 for turn in range(40)]))
    assert apart.p_better == pytest.approx(2**-20)
    assert together.p_better == pytest.approx(2**-2)
    assert (apart.effect, together.effect) == (0.5, 0.5)
    assert [(found.items, found.worth) for found in (apart, together)] == [(40, 40), (40, 4)]


def test_weights_count_in_effect_p_value_and_worth():
    new, old, weights = [1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 0.0], [2.0, 0.5, 1.0, 0.5]
    found = compare_scores(PairedScores(new, old, range(4), weights), against="base", level=0.05)
    assert found.effect == pytest.approx((2.0 - 0.5 + 0.5) / 4)
    assert found.means == pytest.approx((3.5 / 4, 1.5 / 4))
    # Signs of 2.0, 0.5 and 0.5 that add up to at least 2.0: all but those with a negative 2.0, and --.
    assert found.p_value == pytest.approx(3 / 8)
    assert found.effective_n == pytest.approx(16 / 5.5)
    assert (found.gained, found.lost) == (2, 1)


@given(st.integers(1, 300))
def test_without_any_change_the_least_difference_is_that_of_the_score_interval(n):
    z = norm.isf(0.05)
    assert compute_least_difference(n, 0, 0, 0.05) == pytest.approx(-(z**2) / (n + z**2), abs=1e-6)


@pytest.mark.parametrize(("n", "up", "down"), [(80, 5, 1), (80, 0, 3), (300, 20, 40), (12, 4, 0)])
def test_at_the_least_difference_the_score_statistic_is_at_its_level(n, up, down):
    least = compute_least_difference(n, up, down, 0.05)

    def deviance(lost):
        # Where the difference is given, the likeliest share of losses.
        rest = 1 - least - 2 * lost
        return -(up * log(lost + least) + down * log(lost) + (n - up - down) * log(rest))

    low, high = max(0.0, -least) + 1e-9, (1 - least) / 2 - 1e-9
    lost = minimize_scalar(deviance, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    deviation = np.sqrt(n * (2 * lost + least - least**2))
    assert (up - down - n * least) / deviation == pytest.approx(norm.isf(0.05), abs=1e-3)


def test_the_least_difference_is_seldom_above_the_true_one():
    rng = np.random.default_rng(3)
    drawn = rng.multinomial(80, (0.02, 0.07, 0.91), size=2000).tolist()
    above = sum(compute_least_difference(80, up, down, 0.05) > -0.05 for up, down, _ in drawn)
    assert above / 2000 < 0.065


def test_the_smallest_graded_effect_is_that_of_statsmodels():
    gain = Gain(metric="f1", effect=0.0, p_better=1.0, p_worse=1.0, items=200, worth=200, spread=0.3)
    theirs = TTestPower().solve_power(nobs=200, alpha=0.05, power=0.8, alternative="larger") * 0.3
    assert gain.find_smallest_effect(0.05) == pytest.approx(theirs, rel=0.01)
    needed = 200 + gain.count_lacking_items(0.05, 0.05)
    assert gain.model_copy(update={"worth": needed}).find_smallest_effect(0.05) == pytest.approx(
        0.05, rel=0.01
    )


def test_of_items_that_are_worth_less_the_more_are_lacking():
    alone = Gain(metric="f1", effect=0.0, p_better=1.0, p_worse=1.0, items=100, worth=100, spread=0.5)
    sessions = alone.model_copy(update={"worth": 10.0})
    needed = 100 + alone.count_lacking_items(0.1, 0.05)
    assert sessions.count_lacking_items(0.1, 0.05) == pytest.approx(10 * (needed - 10), rel=0.01)


@pytest.mark.parametrize("differences", [[0.0], [0.5], [0.0] * 3, [0.2] * 5])
def test_a_few_graded_items_that_are_alike_show_next_to_nothing(differences):
    new = [0.4 + difference for difference in differences]
    found = compute_gain(PairedScores(new, [0.4] * len(new), range(len(new))))
    assert found.find_smallest_effect(0.2) > 0.3


def test_many_graded_items_hardly_feel_the_one_that_is_assumed():
    differences = np.random.default_rng(4).normal(0, 0.2, 400)
    found = compute_gain(PairedScores((0.5 + differences).tolist(), [0.5] * 400, range(400)))
    assert found.spread == pytest.approx(float(np.std(differences)), rel=0.05)


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=20))
def test_items_are_worth_at_most_their_number(weights):
    assert 1 - 1e-9 <= count_effective_items(weights, range(len(weights))) <= len(weights) + 1e-9


def test_hardly_any_items_show_nothing():
    assert find_smallest_effect(0, 0.3, 0.05) == find_smallest_effect(4, 0.3, 0.05) == 1.0


def test_as_many_items_as_needed_show_the_effect():
    needed = find_items_needed(0.1, 0.3, 0.05)
    assert find_smallest_effect(needed, 0.3, 0.05) <= 0.1 + 2e-3
    assert find_smallest_effect(needed // 2, 0.3, 0.05) > 0.1
