"""The verdict is as honest as the holdout allows."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from evaluation.comparison import Pairs
from evaluation.verdict import Evidence, Gate, decide

GATE = Gate(alpha=0.05, min_effect=0.05)


def judge(n, gained, lost, *, live_right=None, corrected=10, uncorrected=0, gate=GATE):
    right = (n - gained + lost) // 2 if live_right is None else live_right
    return decide(
        Evidence(
            pairs=Pairs(n=n, gained=gained, lost=lost),
            live_right=right,
            corrected=corrected,
            rejected_without_correction=uncorrected,
        ),
        gate,
    )


@st.composite
def evidences(draw):
    n = draw(st.integers(0, 200))
    gained = draw(st.integers(0, n))
    lost = draw(st.integers(0, n - gained))
    live_right = draw(st.integers(lost, n - gained))
    corrected, uncorrected = draw(st.integers(0, 50)), draw(st.integers(0, 50))
    return Evidence(
        pairs=Pairs(n=n, gained=gained, lost=lost),
        live_right=live_right,
        corrected=corrected,
        rejected_without_correction=uncorrected,
    )


@settings(deadline=None)
@given(evidences())
def test_only_what_is_measured_better_is_promoted_and_only_what_is_worse_is_a_regression(evidence):
    decision = decide(evidence, GATE)
    if decision.verdict == "PROMOTE":
        assert evidence.pairs.effect >= GATE.min_effect
        assert evidence.pairs.p_value < GATE.alpha
        assert evidence.rejected_without_correction <= evidence.corrected
    if decision.regression:
        assert decision.verdict == "REJECT"
        assert evidence.pairs.p_worse < GATE.alpha
    assert decision.reason


@st.composite
def promising(draw):
    n = draw(st.integers(40, 200))
    gained = draw(st.integers(n // 4, n - 1))
    lost = draw(st.integers(1, min(n - gained, 1 + gained // 3)))
    pairs, live_right = Pairs(n=n, gained=gained, lost=lost), draw(st.integers(lost, n - gained))
    return Evidence(pairs=pairs, live_right=live_right, corrected=50, rejected_without_correction=0)


@settings(deadline=None)
@given(promising())
def test_fewer_losses_never_turn_a_promotion_into_something_else(evidence):
    assume(decide(evidence, GATE).verdict == "PROMOTE")
    better = evidence.pairs.model_copy(update={"lost": evidence.pairs.lost - 1})
    assert decide(evidence.model_copy(update={"pairs": better}), GATE).verdict == "PROMOTE"


def test_a_candidate_that_passes_is_promoted_on_a_small_holdout_too():
    assert judge(12, 8, 0).verdict == "PROMOTE"


def test_a_significant_but_tiny_gain_is_rejected():
    assert judge(2000, 40, 15).verdict == "REJECT"


def test_a_large_holdout_without_a_gain_rejects():
    assert judge(400, 6, 6).verdict == "REJECT"


def test_a_small_holdout_says_how_many_items_it_takes():
    decision = judge(60, 9, 8)
    assert decision.verdict == "INCONCLUSIVE"
    assert "too few" in decision.reason


def test_a_significant_loss_is_called_a_regression():
    decision = judge(60, 2, 15)
    assert (decision.verdict, decision.regression) == ("REJECT", True)


@pytest.mark.parametrize(
    ("evidence", "missing"),
    [
        ({"n": 0, "gained": 0, "lost": 0}, "no held-out item has gold"),
        ({"n": 500, "gained": 0, "lost": 1, "live_right": 500}, "nothing could be improved"),
        (
            {"n": 50, "gained": 9, "lost": 0, "corrected": 5, "uncorrected": 6},
            "ask reviewers for corrections",
        ),
    ],
)
def test_a_holdout_that_cannot_judge_says_what_is_missing(evidence, missing):
    decision = judge(**evidence)
    assert decision.verdict == "INCONCLUSIVE"
    assert missing in decision.reason
