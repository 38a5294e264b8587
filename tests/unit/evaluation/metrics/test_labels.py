"""Figures of a classification, against scikit-learn's."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from evaluation.metrics.labels import compute_label_probabilities, measure_confidence, measure_labels

SPACE = ("billing", "card lost", "exchange rate", "lost luggage", "taxes")
OUTSIDE = "i cannot say"

golds = st.sampled_from(SPACE[:4])
answers = st.sampled_from((*SPACE, OUTSIDE))
answered = st.lists(st.tuples(answers, golds), min_size=1, max_size=40)


@st.composite
def likelihoods(draw):
    """Nats that differ from label to label: scikit-learn and we break ties differently."""
    nats = st.floats(-30, 0).map(lambda x: round(x, 3))
    one = st.lists(nats, min_size=len(SPACE), max_size=len(SPACE), unique=True)
    items = draw(st.lists(st.tuples(one, st.sampled_from(SPACE)), min_size=1, max_size=30))
    return [dict(zip(SPACE, item, strict=True)) for item, _ in items], [gold for _, gold in items]


@given(answered)
@settings(deadline=None)
def test_figures_of_answers_agree_with_scikit_learn(pairs):
    said, wanted = [p[0] for p in pairs], [p[1] for p in pairs]
    found = measure_labels(said, wanted, SPACE)
    assert found.error_rate == pytest.approx(1 - accuracy_score(wanted, said))
    assert found.hallucination_rate == pytest.approx(np.mean(np.array(said) == OUTSIDE))

    labels = [each.label for each in found.classes]
    precision, recall, f1, support = precision_recall_fscore_support(
        wanted, said, labels=labels, zero_division=0
    )
    assert [each.precision for each in found.classes] == pytest.approx(precision.tolist())
    assert [each.recall for each in found.classes] == pytest.approx(recall.tolist())
    assert [each.f1 for each in found.classes] == pytest.approx(f1.tolist())
    assert [each.support for each in found.classes] == support.tolist()
    assert found.macro_f1 == pytest.approx(f1[support > 0].mean())

    # Columns in the order of SPACE, then what is outside.
    order = [*SPACE, OUTSIDE]
    matrix = np.zeros((len(order), len(order)), dtype=int)
    for cell in found.confusion:
        matrix[order.index(cell.gold), -1 if cell.answered is None else order.index(cell.answered)] = cell.n
    assert (matrix == confusion_matrix(wanted, said, labels=order)).all()


@given(answered)
@settings(deadline=None)
def test_answers_that_are_all_right_or_all_wrong_are_the_bounds(pairs):
    wanted = [gold for _, gold in pairs]
    right = measure_labels(wanted, wanted, SPACE)
    assert (right.error_rate, right.hallucination_rate, right.macro_f1) == (0, 0, 1)
    wrong = measure_labels([OUTSIDE] * len(wanted), wanted, SPACE)
    assert (wrong.error_rate, wrong.hallucination_rate, wrong.macro_f1) == (1, 1, 0)
    assert {cell.answered for cell in wrong.confusion} == {None}


def test_labels_count_without_regard_to_case_space_and_quotes():
    found = measure_labels(['"Billing."', " card  lost"], ["billing", "Card lost"], ("BILLING", "Card lost"))
    assert found.figures == {"error_rate": 0, "hallucination_rate": 0, "macro_f1": 1}
    assert [each.label for each in found.classes] == ["billing", "card lost"]


def test_an_item_without_gold_counts_for_the_hallucinations_alone():
    found = measure_labels(["billing", OUTSIDE], ["billing", None], SPACE)
    assert found.error_rate == 0
    assert found.hallucination_rate == 0.5
    assert sum(cell.n for cell in found.confusion) == 1


def test_a_gold_label_is_no_hallucination_even_where_the_output_space_lacks_it():
    assert measure_labels(["taxes"], ["taxes"], ("billing",)).hallucination_rate == 0


def test_a_label_that_was_never_gold_does_not_lower_the_macro_f1_but_is_listed():
    found = measure_labels(["billing", "taxes"], ["billing", "billing"], SPACE)
    assert [(each.label, each.support) for each in found.classes] == [("billing", 2), ("taxes", 0)]
    assert found.macro_f1 == pytest.approx(2 / 3)


@given(likelihoods())
@settings(deadline=None)
def test_top_k_accuracy_agrees_with_scikit_learn(drawn):
    items, wanted = drawn
    found = measure_confidence(items, wanted)
    scores = np.array([[item[label] for label in SPACE] for item in items])
    expected = top_k_accuracy_score(wanted, scores, k=3, labels=list(SPACE))
    assert (found.k, found.top_k_accuracy) == (3, pytest.approx(expected))


@given(likelihoods())
@settings(deadline=None)
def test_confidence_and_reliability_agree_with_scikit_learn(drawn):
    items, wanted = drawn
    found = measure_confidence(items, wanted)
    nats = np.array([[item[label] for label in SPACE] for item in items])
    shares = np.exp(nats) / np.exp(nats).sum(axis=1, keepdims=True)
    confidence = shares.max(axis=1)
    right = np.array([SPACE[best] for best in shares.argmax(axis=1)]) == np.array(wanted)

    assert found.confidence == pytest.approx(confidence.mean())
    accuracy, mean = calibration_curve(right, confidence, n_bins=10, pos_label=True)
    assert [b.accuracy for b in found.reliability] == pytest.approx(accuracy.tolist())
    assert [b.confidence for b in found.reliability] == pytest.approx(mean.tolist())

    # Guo et al. 2017, equations 2, 3 and 5, item by item.
    bins = [[i for i, c in enumerate(confidence) if m / 10 < c <= (m + 1) / 10] for m in range(10)]
    error = sum(abs(sum(float(right[i]) - confidence[i] for i in members)) for members in bins) / len(items)
    assert found.confidence_calibration == pytest.approx(error, abs=1e-9)
    assert 0 <= found.confidence_calibration <= 1
    assert [b.n for b in found.reliability] == [len(members) for members in bins if members]


@given(likelihoods(), st.floats(-5, 5))
@settings(deadline=None)
def test_what_all_labels_have_in_common_changes_nothing(drawn, shift):
    items, wanted = drawn
    moved = [{label: nats + shift for label, nats in item.items()} for item in items]
    found, same = measure_confidence(items, wanted).figures, measure_confidence(moved, wanted).figures
    assert found["top_k_accuracy"] == same["top_k_accuracy"]
    assert found["confidence"] == pytest.approx(same["confidence"])


def test_a_model_that_is_sure_and_right_is_calibrated_and_one_that_is_sure_and_wrong_is_not():
    sure = [{"billing": 0.0, "taxes": -100.0}] * 10
    assert measure_confidence(sure, ["billing"] * 10).confidence_calibration == pytest.approx(0)
    assert measure_confidence(sure, ["taxes"] * 10).confidence_calibration == pytest.approx(1)


@pytest.mark.parametrize(("labels", "k"), [(1, 1), (2, 1), (3, 2), (4, 3), (5, 3)])
def test_fewer_labels_count_than_there_are(labels, k):
    item = {label: -float(place) for place, label in enumerate(SPACE[:labels])}
    assert measure_confidence([item], [SPACE[0]]).k == k


def test_who_cannot_tell_labels_apart_is_right_about_none():
    alike = dict.fromkeys(SPACE, -1.0)
    found = measure_confidence([alike], ["billing"])
    assert (found.top_k_accuracy, found.confidence) == (0, pytest.approx(1 / 5))
    assert found.reliability[0].accuracy == 0


def test_a_confidence_on_the_edge_of_two_bins_belongs_to_the_lower_one():
    (found,) = measure_confidence([{"billing": -1.0, "taxes": -1.0}], ["billing"]).reliability
    assert (found.low, found.high, found.n, found.confidence) == (0.4, 0.5, 1, 0.5)


def test_a_gold_label_outside_the_space_is_found_by_nobody():
    assert measure_confidence([dict.fromkeys(SPACE, -1.0)], ["weather"]).top_k_accuracy == 0


def test_two_spellings_of_a_label_share_their_probability():
    shares = compute_label_probabilities(
        {"Billing": math.log(0.25), "billing": math.log(0.25), "taxes": math.log(0.5)}
    )
    assert shares == pytest.approx({"billing": 0.5, "taxes": 0.5})


@pytest.mark.parametrize("broken", [math.nan, -math.inf])
def test_likelihoods_of_a_broken_model_give_figures_that_json_can_carry(broken):
    found = measure_confidence([dict.fromkeys(SPACE, broken)], ["billing"])
    assert found.confidence == pytest.approx(1 / 5)
    assert "NaN" not in json.dumps(found.model_dump(), allow_nan=False)
    assert compute_label_probabilities({"billing": broken, "taxes": -3.0}) == {"billing": 0, "taxes": 1}
