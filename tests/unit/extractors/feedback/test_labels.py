"""Tests of labels as tools and people write them, and of those that no rule names."""

import pytest

from extractors.feedback.extract import extract
from extractors.feedback.labels import normalise_label
from extractors.feedback.rules import AnnotationRule, FeedbackRules
from extractors.feedback.searches import RELEVANCE, extract_searches
from extractors.feedback.unknown_labels import LONGEST_SHOWN, MOST_SHOWN, UnknownLabel
from tests.support.traffic import annotation, correction, span

RULE = AnnotationRule(name="approval")
RULES = FeedbackRules(annotations=(RULE, AnnotationRule(name="quality", approved_from=0.8, rejected_to=0.2)))


@pytest.mark.parametrize(
    "label",
    ["thumbs-up", "Thumbs Up", "THUMBS_UP", "thumbs  up!", "👍", "👍🏽", "👍\ufe0f", ":thumbsup:", "+1",
     "Correct.", "'good'", "PASS", "helpful", "_accepted_"],
)  # fmt: skip
def test_approval_is_recognised_however_it_is_spelt(label: str) -> None:
    assert RULE.approves(annotation(label=label)) is True


@pytest.mark.parametrize(
    "label",
    [
        "thumbs-down",
        "Thumbs Down",
        "👎🏿",
        "-1",
        " incorrect ",
        "Not helpful",
        "not-helpful",
        "unhelpful",
        "FAIL",
    ],
)
def test_rejection_is_recognised_however_it_is_spelt(label: str) -> None:
    assert RULE.approves(annotation(label=label)) is False


@pytest.mark.parametrize(
    "label", ["yes", "no", "true", "0", "1", "good?", "thumbs", "so-so", "?", "not good"]
)
def test_a_word_that_depends_on_the_question_or_doubts_is_no_verdict(label: str) -> None:
    assert RULE.approves(annotation(label=label)) is None


def test_labels_of_the_operator_are_compared_in_the_same_way() -> None:
    rule = AnnotationRule(name="approval", approved_labels=("Ship it",), rejected_labels=(":(", "nope"))
    assert rule.approves(annotation(label="ship-it!")) is True
    assert rule.approves(annotation(label=":(")) is False
    with pytest.raises(ValueError, match="both approve and reject"):
        AnnotationRule(name="approval", approved_labels=("ship it",), rejected_labels=("Ship_It.",))


def test_normalising_a_label_again_changes_nothing() -> None:
    for label in ("Thumbs_Up", "'a - b'", "_x_", "...", "", "👍🏽!", "-1"):
        once = normalise_label(label)
        assert normalise_label(once) == once


def test_labels_that_no_rule_names_are_counted_by_name_and_label() -> None:
    notes = [
        *(annotation(f"s{n}", "thumbs_sideways") for n in range(3)),
        annotation("s1", "yes", identifier="bob"),
        annotation("s1", "four stars", name="quality"),
        annotation("s2", "four stars", name="quality", score=0.9),
        annotation("s2", "so-so", name="tone"),
        annotation("s1", " ", identifier="cleo"),
        annotation("s1", "hm", identifier="dan", metadata={"correction": "shipping"}),
        annotation("s1:0", "hm", level="document"),
        correction("s2"),
    ]
    found = extract([span(f"s{n}", n) for n in range(3)], notes, RULES)
    assert found.unknown_labels == (
        UnknownLabel(name="approval", label="thumbs_sideways", annotations=3),
        UnknownLabel(name="approval", label="yes", annotations=1),
        UnknownLabel(name="quality", label="four stars", annotations=1),
    )
    assert str(found.unknown_labels[0]) == (
        "approval: 3 annotations have the label 'thumbs_sideways', which no rule names"
    )


def test_a_kind_of_annotator_that_does_not_count_has_no_unknown_labels() -> None:
    rules = FeedbackRules(precedence=("HUMAN",))
    assert extract([span()], [annotation(label="?", annotator_kind="LLM")], rules).unknown_labels == ()


def test_free_text_in_labels_is_shown_in_part() -> None:
    notes = [annotation(f"s{n}", f"{n} is a long remark " * 9) for n in range(MOST_SHOWN + 1)]
    unknown = extract([span()], notes, FeedbackRules()).unknown_labels
    assert len(unknown) == MOST_SHOWN
    assert {len(each.label) for each in unknown} == {LONGEST_SHOWN}


def test_unknown_labels_of_documents_are_counted_for_searches() -> None:
    rules = FeedbackRules(annotations=(RELEVANCE,))
    note = annotation("s1:0", "kind of", name="relevance", level="document")
    found = extract_searches([], [note, annotation("s1", "hm", name="relevance")], rules)
    assert [(each.label, each.annotations) for each in found.unknown_labels] == [("kind of", 1)]
