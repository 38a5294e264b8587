"""Hand-made sessions of several turns, and what is extracted from them."""

from collections.abc import Sequence
from typing import Any

from extractors.feedback.extract import Extraction, extract
from extractors.feedback.rules import FeedbackRules
from extractors.phoenix.spans import Annotation, Span
from tests.support.traffic import annotation, openinference, span

RULES = FeedbackRules(inherit="last")


def make_turn(
    number: int, messages: Sequence[tuple[str, str]], answer: str, session: str | None = None
) -> Span:
    return span(f"s{number}", number, attributes=openinference(*messages, answer=answer), session_id=session)


def extract_with(
    spans: list[Span], annotations: list[Annotation], rules: FeedbackRules = RULES
) -> Extraction:
    return extract(spans, annotations, rules)


def make_session(
    start: int, session: str, *answers: str, history: bool = True, opening: str = "hi"
) -> list[Span]:
    """A session of several turns, each in a trace of its own."""
    spans: list[Span] = []
    said: list[tuple[str, str]] = []
    for number, answer in enumerate(answers):
        said.append(("user", opening if number == 0 else f"and {number}?"))
        sent = said if history else said[-1:]
        spans.append(make_turn(start + number, [("system", "Help."), *sent], answer, session))
        said.append(("assistant", answer))
    return spans


def annotate_session(session: str, label: str | None, **changes: Any) -> Annotation:
    return annotation(session, label, level="session", **changes)


def annotate_call(number: int, label: str, **changes: Any) -> Annotation:
    return annotation(f"s{number}", label, **changes)
