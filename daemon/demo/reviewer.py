"""The demo's scripted reviewer: it knows the right answers and says so as people do in Phoenix.

It approves and rejects, and writes the right answer into a correction for most of the rejected ones.
The caller posts them.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from extractors.phoenix.spans import Annotation

REVIEWER = "demo-reviewer"
UNCORRECTED_EVERY = 8
"""Each eighth wrong answer is rejected without a correction: people do not correct all."""


class ReviewedAnswer(NamedTuple):
    """An answer of the agent in one span, with the right one."""

    span_id: str
    """OpenTelemetry span id: 16 hex digits."""
    text: str
    right_label: str


def write_annotations(answers: Sequence[ReviewedAnswer], now: datetime) -> list[Annotation]:
    """Return the reviewer's annotations on each answer's span, in the order of `answers`.

    Each answer gets an `approval`, labelled `approved` or `rejected`; it is right if it is the
    label, white space around it aside. A wrong one mostly gets a FREEFORM `correction` too,
    whose explanation is the right label.
    """
    return list(_annotate(answers, now))


def _annotate(answers: Sequence[ReviewedAnswer], now: datetime) -> Iterator[Annotation]:
    wrong = 0
    for answer in answers:
        if answer.text.strip() == answer.right_label:
            yield _build_annotation(answer, now, name="approval", label="approved", score=1.0)
            continue
        wrong += 1
        yield _build_annotation(answer, now, name="approval", label="rejected", score=0.0)
        if wrong % UNCORRECTED_EVERY:
            yield _build_annotation(answer, now, name="correction", explanation=answer.right_label)


def _build_annotation(answer: ReviewedAnswer, now: datetime, **said: Any) -> Annotation:
    return Annotation(
        level="span",
        subject_id=answer.span_id,
        identifier=REVIEWER,
        annotator_kind="HUMAN",
        updated_at=now,
        **said,
    )
