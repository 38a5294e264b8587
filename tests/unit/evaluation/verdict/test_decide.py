"""The verdict is as honest as the holdout allows."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from evaluation.report import PromotionGuard
from evaluation.rules import Gate
from evaluation.verdict.decide import Evidence, decide, explain
from evaluation.verdict.error_rates import CandidateMix, describe_error_rates, measure_rule
from evaluation.verdict.paired_tests import PairedCounts, adjust_by_holm, compute_gain_of_counts

TWO = Gate()
ONE = Gate(rule="one-look")


def evidence(n, gained, lost, *, live=0.6, **more):
    return Evidence(
        gains=(compute_gain_of_counts(PairedCounts(n=n, gained=gained, lost=lost), other=live),), **more
    )


def verdict(found, gate=TWO, look="first"):
    return decide(found, gate, look).verdict


def words(found, gate=TWO, look="first"):
    return explain(decide(found, gate, look), found, gate, look)


def primary_p(found):
    """The p-value of the primary metric as one of several."""
    return adjust_by_holm([gain.p_better for gain in found.gains])[0]


def guard(state):
    return PromotionGuard(name="valid answers", state=state, words=f"valid answers are {state}")


@st.composite
def counts(draw):
    n = draw(st.integers(0, 200))
    gained = draw(st.integers(0, n))
    return PairedCounts(n=n, gained=gained, lost=draw(st.integers(0, n - gained)))


@st.composite
def found(draw):
    states = st.sampled_from(["kept", "open", "broken"])
    return Evidence(
        gains=tuple(
            compute_gain_of_counts(draw(counts()), metric=metric, other=draw(st.floats(0, 1)))
            for metric in ("accuracy", "f1")[: draw(st.integers(1, 2))]
        ),
        retention=compute_gain_of_counts(draw(counts())) if draw(st.booleans()) else None,
        guards=tuple(guard(draw(states)) for _ in range(draw(st.integers(0, 2)))),
        over_waiting=draw(st.none() | st.floats(-1, 1)),
        unfair=draw(st.sampled_from(["", "nothing was corrected"])),
    )


@settings(deadline=None)
@given(found(), st.sampled_from([ONE, TWO]), st.sampled_from(["first", "second"]))
def test_only_what_is_better_and_nowhere_worse_is_promoted(evidence, gate, look):
    decision = decide(evidence, gate, look)
    assert explain(decision, evidence, gate, look)
    if decision.verdict == "PROMOTE":
        assert not evidence.unfair
        assert all(guard.state == "kept" for guard in evidence.guards)
        assert primary_p(evidence) <= gate.promotion_level(look)
        assert evidence.gains[0].effect >= gate.min_effect
        assert all(gain.p_worse > gate.alpha / 3 for gain in evidence.gains)
    if decision.verdict == "PROBATION":
        assert (gate.rule, look) == ("two-looks", "first")
        assert primary_p(evidence) <= gate.promising


@settings(deadline=None)
@given(counts(), st.sampled_from([ONE, TWO]), st.sampled_from(["first", "second"]))
def test_fewer_losses_never_turn_a_promotion_into_something_else(counts, gate, look):
    assume(counts.lost)
    one = Evidence(gains=(compute_gain_of_counts(counts),))
    assume(verdict(one, gate, look) == "PROMOTE")
    better = compute_gain_of_counts(counts.model_copy(update={"lost": counts.lost - 1}))
    assert verdict(Evidence(gains=(better,)), gate, look) == "PROMOTE"


def test_a_candidate_that_passes_is_promoted_on_a_small_holdout_too():
    assert verdict(evidence(12, 9, 0)) == "PROMOTE"


def test_a_promising_one_gets_a_second_look_and_is_decided_there():
    promising = evidence(80, 14, 6)
    assert verdict(promising) == "PROBATION"
    assert "traffic that comes after its training" in words(promising)
    assert verdict(evidence(160, 28, 12), look="second") == "PROMOTE"
    assert verdict(evidence(160, 20, 19), look="second") != "PROMOTE"


def test_one_look_decides_at_once():
    found = evidence(80, 18, 6)
    assert (verdict(found, ONE), verdict(found, TWO)) == ("PROMOTE", "PROBATION")


def test_one_that_is_no_better_than_the_version_on_probation_does_not_replace_it():
    assert verdict(evidence(80, 14, 6, over_waiting=0.01)) == "PROBATION"
    again = evidence(80, 14, 6, over_waiting=0.0)
    assert verdict(again) == "REJECT"
    assert "version on probation" in words(again)


def test_a_significant_but_tiny_gain_is_not_promoted():
    tiny = evidence(2000, 40, 15)
    assert verdict(tiny, ONE) == "REJECT"
    assert verdict(tiny) == "PROBATION"
    assert "live at once takes p <= 0.005 and an effect of at least 0.05" in words(tiny)


def test_a_large_holdout_without_a_gain_rejects():
    assert verdict(evidence(800, 6, 6)) == "REJECT"


def test_a_small_holdout_says_how_many_items_it_takes():
    few = evidence(60, 9, 9)
    assert verdict(few) == "INCONCLUSIVE"
    assert "60 held-out items are too few" in words(few)
    assert "it needs about" in words(few)


def test_items_that_belong_together_are_counted_and_what_they_are_worth_is_told():
    turns = compute_gain_of_counts(PairedCounts(n=100, gained=9, lost=9)).model_copy(update={"worth": 10.0})
    few = Evidence(gains=(turns,))
    assert verdict(few) == "INCONCLUSIVE"
    assert "100 held-out items (worth 10 independent ones) are too few" in words(few)
    apart = turns.model_copy(update={"worth": 100.0, "churn": turns.churn})
    lacking = turns.count_lacking_items(0.05, 0.2)
    assert f"it needs about {lacking} more" in words(few)
    assert lacking == pytest.approx(10 * (90 + apart.count_lacking_items(0.05, 0.2)), rel=0.01)


@pytest.mark.parametrize("lost", range(40, 80, 5))
def test_what_the_report_calls_out_of_reach_is_never_rejected_as_no_better(lost):
    gain = compute_gain_of_counts(PairedCounts(n=500, gained=lost, lost=lost))
    decision = decide(Evidence(gains=(gain,)), TWO)
    out_of_reach = gain.find_smallest_effect(TWO.detection_level("first", 1)) > TWO.min_effect
    assert decision.condition == ("too few items" if out_of_reach else "not better")


def test_twelve_items_that_show_little_are_too_few():
    few = evidence(12, 2, 1)
    assert verdict(few) == "INCONCLUSIVE"
    assert "12 held-out items are too few" in words(few)


def test_a_significant_loss_is_called_a_regression():
    found = evidence(60, 2, 15)
    assert decide(found, TWO).condition == "regression"
    assert words(found).startswith("a regression")


def test_a_guard_that_is_broken_rejects_what_is_better():
    found = evidence(80, 30, 0, guards=(guard("kept"), guard("broken")))
    assert (verdict(found), words(found)[:27]) == ("REJECT", "valid answers are broken; o")


def test_a_guard_that_so_few_items_leave_open_waits_for_more():
    found = evidence(80, 30, 0, guards=(guard("open"),))
    assert (verdict(found), verdict(found, ONE)) == ("PROBATION", "INCONCLUSIVE")
    assert "valid answers are open" in words(found)


def test_forgetting_rejects_what_is_better():
    found = evidence(80, 30, 0, retention=compute_gain_of_counts(PairedCounts(n=60, gained=1, lost=14)))
    assert decide(found, TWO).condition == "forgetting"
    assert "it forgets: accuracy -0.217 on 60 older items" in words(found)


def test_of_several_metrics_the_first_must_be_better_and_the_more_certain():
    better, same = (
        compute_gain_of_counts(PairedCounts(n=80, gained=9, lost=1)),
        compute_gain_of_counts(PairedCounts(n=80, gained=4, lost=4)),
    )
    alone, beside = Evidence(gains=(better,)), Evidence(gains=(better, same))
    assert 0.01 < better.p_better < 0.015
    level = Gate(rule="one-look", alpha=0.015)
    assert verdict(alone, level) == "PROMOTE"
    assert verdict(beside, level) == "INCONCLUSIVE"
    assert verdict(beside, ONE) == "PROMOTE"


@pytest.mark.parametrize("gate", [ONE, TWO])
@pytest.mark.parametrize(("gained", "lost"), [(5, 9), (4, 4)])
def test_a_metric_beside_the_primary_one_promotes_nobody(gate, gained, lost):
    near = compute_gain_of_counts(PairedCounts(n=300, gained=120, lost=5), metric="token_f1")
    found = Evidence(gains=(compute_gain_of_counts(PairedCounts(n=300, gained=gained, lost=lost)), near))
    assert verdict(found, gate) == "REJECT"
    turned = Evidence(gains=(near, found.gains[0]))
    assert verdict(turned, gate) == "PROMOTE"


def test_a_metric_beside_the_primary_one_keeps_a_candidate_out_that_is_worse_by_it():
    better, worse = (
        compute_gain_of_counts(PairedCounts(n=300, gained=60, lost=5)),
        compute_gain_of_counts(PairedCounts(n=300, gained=2, lost=20)),
    )
    assert decide(Evidence(gains=(better, worse)), TWO).condition == "regression"


def test_nothing_can_be_better_than_all_right():
    found = evidence(500, 0, 1, live=1.0)
    assert verdict(found) == "INCONCLUSIVE"
    assert "nothing could be improved" in words(found)


def test_an_unfair_holdout_judges_nobody():
    found = evidence(80, 30, 0, unfair="nothing was corrected")
    assert (verdict(found), words(found)) == ("INCONCLUSIVE", "nothing was corrected")


def test_thresholds_out_of_order_are_refused():
    with pytest.raises(ValidationError, match="at_once"):
        Gate(at_once=0.1)


@pytest.mark.parametrize("n", [50, 100, 300])
@pytest.mark.parametrize("gate", [ONE, Gate(rule="one-look", min_effect=0.0)])
def test_of_two_equally_good_models_one_is_promoted_no_more_often_than_alpha(n, gate):
    rng = np.random.default_rng(n)
    drawn = rng.multinomial(n, (0.15, 0.15, 0.7), size=4000).tolist()
    promoted = sum(verdict(evidence(n, gained, lost), gate) == "PROMOTE" for gained, lost, _ in drawn)
    assert promoted <= 0.05 * 4000


@pytest.mark.parametrize("n", [50, 100])
def test_how_often_a_rule_errs_is_as_the_facts_of_the_field_say(n):
    one, two = (measure_rule(gate, n, 2 * n, CandidateMix()) for gate in (ONE, TWO))
    assert (one.false_share, one.power) == pytest.approx({50: (0.44, 0.28), 100: (0.33, 0.51)}[n], abs=0.02)
    assert (two.false_share, two.power) == pytest.approx({50: (0.13, 0.33), 100: (0.08, 0.67)}[n], abs=0.02)
    assert two.worse_promoted < one.worse_promoted < 1


def test_how_often_a_rule_errs_is_said_for_as_many_items_as_it_can_be_worked_out_for():
    assert describe_error_rates(ONE, 50).startswith("one look: with 50 held-out items about 4")
    assert "with 300 or more held-out items" in describe_error_rates(ONE, 5000)
