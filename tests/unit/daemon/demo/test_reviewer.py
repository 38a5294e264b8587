"""The demo's scripted reviewer."""

from datetime import UTC, datetime

from daemon.demo.reviewer import ReviewedAnswer, write_annotations
from extractors.phoenix.spans import Annotation

NOW = datetime(2026, 3, 10, tzinfo=UTC)


def wrong_answers(count: int) -> list[ReviewedAnswer]:
    return [ReviewedAnswer(f"{i:016x}", "Hello! How can I help?", "billing") for i in range(count)]


def test_a_right_answer_is_approved_and_nothing_else_is_said():
    [approval] = write_annotations([ReviewedAnswer("00000000000000aa", " billing\n", "billing")], NOW)
    assert approval == Annotation(
        level="span",
        subject_id="00000000000000aa",
        name="approval",
        identifier="demo-reviewer",
        annotator_kind="HUMAN",
        label="approved",
        score=1.0,
        updated_at=NOW,
    )


def test_a_wrong_answer_is_rejected_and_the_right_one_is_written_into_a_correction():
    rejection, correction = write_annotations(wrong_answers(1), NOW)
    assert (rejection.label, rejection.score) == ("rejected", 0.0)
    assert (correction.name, correction.explanation) == ("correction", "billing")
    assert correction.subject_id == rejection.subject_id


def test_an_answer_that_only_contains_the_label_is_wrong():
    assert (
        write_annotations([ReviewedAnswer("aa", "I think billing.", "billing")], NOW)[0].label == "rejected"
    )


def test_each_eighth_wrong_answer_gets_no_correction():
    annotations = write_annotations(wrong_answers(24), NOW)
    rejected = [a.subject_id for a in annotations if a.name == "approval"]
    corrected = [a.subject_id for a in annotations if a.name == "correction"]
    assert rejected == [answer.span_id for answer in wrong_answers(24)]
    assert [s for s in rejected if s not in corrected] == [f"{i:016x}" for i in (7, 15, 23)]
