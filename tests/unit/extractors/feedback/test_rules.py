"""Tests of the verdict that annotations give on one response."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from extractors.examples.types import Message, ToolCall
from extractors.feedback.extract import extract
from extractors.feedback.rules import (
    AnnotationRule,
    FeedbackRules,
    Verdict,
    has_unreadable_answer,
    resolve_candidates,
    resolve_verdict,
)
from extractors.phoenix.spans import Annotation
from extractors.span_parsing.drop_reasons import DropReason
from tests.support.traffic import NOON, annotation, correction, span

BILLING = Message(role="assistant", content="billing")
SHIPPING = Message(role="assistant", content="shipping")
APPROVED = ("approved", BILLING)
REJECTED = ("rejected", None)
CORRECTED = ("corrected", SHIPPING)
LATER = NOON + timedelta(minutes=1)


Decision = tuple[str, Message | None] | DropReason | None


def verdict(*annotations: Annotation, rules: FeedbackRules | None = None) -> Decision:
    found = resolve_verdict(annotations, BILLING, rules or FeedbackRules())
    return (found.outcome, found.gold) if isinstance(found, Verdict) else found


def resolve_score(score: float | None, label: str | None = None) -> Decision:
    rule = AnnotationRule(name="approval", approved_from=0.8, rejected_to=0.2)
    return verdict(annotation(label=label, score=score), rules=FeedbackRules(annotations=(rule,)))


def test_labels_are_compared_without_regard_to_case() -> None:
    assert verdict(annotation(label="Approved")) == APPROVED
    assert verdict(annotation(label="👎")) == REJECTED
    assert verdict(annotation(label="unsure")) is None


def test_scores_between_the_two_limits_are_no_verdict() -> None:
    assert resolve_score(0.8) == APPROVED
    assert resolve_score(0.2) == REJECTED
    assert resolve_score(0.5) is None
    assert resolve_score(float("nan")) is None


def test_a_label_counts_before_the_score() -> None:
    assert resolve_score(0.9, label="rejected") == REJECTED
    assert resolve_score(0.9, label="unsure") == APPROVED


def test_rules_that_overlap_are_refused() -> None:
    with pytest.raises(ValidationError, match="both approve and reject"):
        AnnotationRule(name="approval", approved_labels=("OK",), rejected_labels=("ok",))
    with pytest.raises(ValidationError, match="must lie above"):
        AnnotationRule(name="approval", approved_from=0.5, rejected_to=0.5)
    with pytest.raises(ValidationError, match="named twice"):
        FeedbackRules(annotations=(AnnotationRule(name="correction"),))


def test_other_annotation_names_and_unranked_annotators_do_not_count() -> None:
    assert verdict(annotation(name="tone")) is None
    assert (
        verdict(annotation(annotator_kind="CODE"), rules=FeedbackRules(precedence=("HUMAN", "LLM"))) is None
    )


def test_people_outrank_models_and_models_outrank_code() -> None:
    by_llm = annotation(label="rejected", annotator_kind="LLM", identifier="judge", updated_at=LATER)
    by_code = annotation(label="approved", annotator_kind="CODE", identifier="check", updated_at=LATER)
    assert verdict(by_llm, by_code) == REJECTED
    assert verdict(by_llm, by_code, annotation()) == APPROVED
    assert verdict(by_llm, by_code, rules=FeedbackRules(precedence=("CODE", "LLM"))) == APPROVED


def test_a_verdict_says_how_much_it_counts_and_since_when() -> None:
    by_llm = annotation(annotator_kind="LLM", identifier="judge", updated_at=LATER)
    by_bob = annotation(identifier="bob", updated_at=LATER)
    for said, rank, at in (
        ([by_llm], 1, LATER),
        ([by_llm, annotation()], 0, NOON),
        ([annotation(), by_bob], 0, LATER),
    ):
        found = resolve_verdict(said, BILLING, FeedbackRules())
        assert isinstance(found, Verdict)
        assert (found.rank, found.at) == (rank, at)


def test_the_newest_word_of_the_same_reviewer_stands() -> None:
    # Two spans traced the call, and the reviewer annotated both.
    first, second = annotation("s1", "rejected"), annotation("s2", "approved", updated_at=LATER)
    assert verdict(first, second) == verdict(second, first) == APPROVED


def test_reviewers_who_disagree_exclude_the_response() -> None:
    bob = annotation(label="rejected", identifier="bob", updated_at=LATER)
    assert verdict(annotation(), bob) is DropReason.DISAGREEMENT
    assert verdict(annotation(), correction(identifier="bob")) is DropReason.DISAGREEMENT
    assert verdict(annotation(label="rejected"), bob) == REJECTED


def test_a_correction_is_the_better_output_wherever_it_is_written() -> None:
    assert verdict(correction(text=" shipping\n")) == CORRECTED
    assert verdict(annotation(label="shipping", name="correction")) == CORRECTED
    assert verdict(annotation(label="rejected", metadata={"correction": "shipping"})) == CORRECTED
    assert verdict(annotation(label=None, metadata={"correction": {"content": "shipping"}})) == CORRECTED
    assert verdict(annotation(label="rejected"), correction()) == CORRECTED
    assert verdict(annotation(label="rejected"), correction(identifier="bob")) == CORRECTED


def test_a_correction_can_call_tools() -> None:
    written = '{"tool_calls": [{"function": {"name": "refund", "arguments": "{}"}}]}'
    calling = Message(role="assistant", tool_calls=(ToolCall(name="refund", arguments="{}"),))
    assert verdict(correction(text=written)) == ("corrected", calling)


def test_a_correction_speaks_for_its_reviewer() -> None:
    assert verdict(annotation(label="approved"), correction()) == CORRECTED


def test_a_correction_that_equals_the_response_approves_it() -> None:
    assert verdict(correction(text="billing ")) == APPROVED


def test_corrections_that_differ_exclude_the_response() -> None:
    assert (
        verdict(correction(), correction(text="returns", identifier="bob")) is DropReason.CORRECTIONS_DIFFER
    )


def test_an_empty_or_unreadable_correction_says_nothing() -> None:
    assert verdict(correction(text="  ")) is None
    assert verdict(correction(text="\ud83d")) is None
    assert verdict(correction(text="x" * 1_000_000)) is None
    assert verdict(annotation(label="rejected", metadata={"correction": 7})) == REJECTED
    assert verdict(annotation(label="rejected", metadata={"correction": {}})) == REJECTED


UNREADABLE = [7, "x" * 600_000, {"content": "x" * 600_000}, "\ud83d", {"content": "\ud83d"}]


@pytest.mark.parametrize(
    "written", UNREADABLE, ids=["number", "long", "long-message", "torn", "torn-message"]
)
@pytest.mark.parametrize("key", ["correction", "response"])
def test_a_correction_or_candidate_that_cannot_be_stored_says_nothing_and_is_counted(
    written: Any, key: str
) -> None:
    note = annotation(label="approved", metadata={key: written})
    assert verdict(note) == (APPROVED if key == "correction" else None)
    assert resolve_candidates([note], BILLING, FeedbackRules()) == []
    assert has_unreadable_answer(note, FeedbackRules())
    assert extract([span()], [note], FeedbackRules()).dropped[DropReason.ANSWER_UNREADABLE] == 1


def test_only_answers_under_names_that_count_are_looked_at() -> None:
    assert not has_unreadable_answer(annotation(name="tone", metadata={"correction": 7}), FeedbackRules())
    assert not has_unreadable_answer(
        annotation(metadata={"correction": "x", "response": ""}), FeedbackRules()
    )
    assert has_unreadable_answer(correction(text="\ud83d"), FeedbackRules())


def test_feedback_on_another_candidate_is_about_that_one() -> None:
    other = annotation(label="rejected", identifier="bob", metadata={"response": "returns"})
    assert verdict(other) is None
    assert verdict(annotation(), other) == APPROVED
    assert verdict(annotation(metadata={"response": "billing"})) == APPROVED
