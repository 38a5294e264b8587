"""The demo's scripted reviewer: it knows the right answers and says so as people do in Phoenix.

It approves, rejects, and for most rejected answers writes the right one into a correction.
Answers in, annotations out; posting them is the caller's.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from extractors.phoenix.spans import Annotation

REVIEWER = "demo-reviewer"
UNCORRECTED_EVERY = 8
"""Of the wrong answers, each eighth is rejected without a correction: people do not correct all."""


class Answer(NamedTuple):
    """What the agent answered in one span, and what it should have answered."""

    span_id: str
    """OpenTelemetry span id: 16 hex digits."""
    text: str
    right_label: str


def review(answers: Sequence[Answer], now: datetime) -> list[Annotation]:
    """What the reviewer leaves on each answer's span, in the order of `answers`.

    Each answer gets an `approval`, labelled `approved` or `rejected`; it is right if it is the
    label, white space around it aside. A wrong one mostly gets a FREEFORM `correction` too,
    whose explanation is the right label.
    """
    return list(_annotations(answers, now))


def _annotations(answers: Sequence[Answer], now: datetime) -> Iterator[Annotation]:
    wrong = 0
    for answer in answers:
        if answer.text.strip() == answer.right_label:
            yield _annotation(answer, now, name="approval", label="approved", score=1.0)
            continue
        wrong += 1
        yield _annotation(answer, now, name="approval", label="rejected", score=0.0)
        if wrong % UNCORRECTED_EVERY:
            yield _annotation(answer, now, name="correction", explanation=answer.right_label)


def _annotation(answer: Answer, now: datetime, **said: Any) -> Annotation:
    return Annotation(
        level="span",
        subject_id=answer.span_id,
        identifier=REVIEWER,
        annotator_kind="HUMAN",
        updated_at=now,
        **said,
    )
