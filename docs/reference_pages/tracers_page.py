"""The tracers that learnd was tried with, and what it reads of their traces: from the corpus of the tests."""

from collections.abc import Mapping

from extractors.span_parsing.drop_reasons import DropReason
from reference_pages.markdown import GENERATED, code, table
from tests.corpus.recorded import (
    NOT_TRACED,
    READ,
    TRACERS,
    UNLEARNABLE,
    read_expected,
    read_settings,
    read_versions,
)

INTRO = """# Tracers

A scripted agent was recorded under each of these tracers, against a stand-in for its provider that wrote down
what was really said. learnd's tests replay the recordings through Phoenix's own decoder and compare: what is
read must equal what was said. A trace from which that cannot be had is refused, counted, and named by
`learnd data summary` with its reason; it never becomes training data.

- **in full**: every call that a text model can learn from is read, with its tools.
- **in part**: some calls are refused, or are read without the tools that were offered.
- **refused**: no call is read.

Names that begin with `openinference` are Arize's instrumentors, those with `openllmetry` Traceloop's, those
with `opentelemetry` OpenTelemetry's own; the others are SDKs that trace by themselves. Other versions may
write other traces. What learnd cannot read, it refuses.

"""
SITUATIONS = """## What is read, call by call

✓ is read in full, ✗ refused for the reason of that number below; an empty cell was not recorded. Calls that
failed, have an image, were cut off or have several answers are always refused.

"""
MEANINGS = {
    "plain": "a system prompt, a question, an answer",
    "parallel calls": "two tools called in one answer",
    "tool results": "the answer to their results",
    "streamed": "an answer that came as a stream",
    "error": "the provider failed",
    "retry": "the same request again, answered",
    "image": "an image in the prompt",
    "cut off": "an answer that ended at the limit of tokens",
    "streamed calls": "a text and a tool call that came as a stream",
    "streamed results": "the streamed answer to the tool's result",
    "thoughts": "an answer of a reasoning model",
    "several answers": "two answers to one request",
    "referenced history": "a request with `previous_response_id`",
}
"""Situations of the script, in the order of the columns."""
REASONS = "Reasons:\n\n"


def tracers_page() -> str:
    """Return the page as Markdown."""
    expected = read_expected()
    numbers = number_reasons(expected)
    return GENERATED + INTRO + _overview(expected) + _situations(expected, numbers)


def number_reasons(expected: Mapping[str, Mapping[str, str]]) -> dict[str, int]:
    """Number the names of the reasons that occur, from 1, in the order of DropReason."""
    named = {outcome for outcomes in expected.values() for outcome in outcomes.values()}
    return {
        name: number
        for number, name in enumerate((each for each in DropReason.__members__ if each in named), 1)
    }


def summarise(outcomes: Mapping[str, str]) -> str:
    """Return `in full`, `in part` or `refused`, for the situations that a text model can learn from."""
    learnable = [outcome for situation, outcome in outcomes.items() if situation not in UNLEARNABLE]
    if all(outcome == READ for outcome in learnable):
        return "in full"
    return "in part" if any(outcome.startswith(READ) for outcome in learnable) else "refused"


def _overview(expected: Mapping[str, Mapping[str, str]]) -> str:
    rows = [
        (
            tracer,
            summarise(expected[tracer]),
            ", ".join(f"{code(package)} {version}" for package, version in read_versions(tracer).items()),
            ", ".join(code(f"{name}={value}") for name, value in read_settings(tracer).items()),
        )
        for tracer in TRACERS
    ]
    return table(("tracer", "read", "recorded with", "and these settings"), rows)


def _situations(expected: Mapping[str, Mapping[str, str]], numbers: Mapping[str, int]) -> str:
    rows = [
        (tracer, *(_cell(expected[tracer].get(situation), numbers) for situation in MEANINGS))
        for tracer in TRACERS
    ]
    meanings = "".join(f"- **{situation}**: {meaning}\n" for situation, meaning in MEANINGS.items()) + "\n"
    reasons = "".join(f"{number}. {DropReason[name].value}\n" for name, number in numbers.items())
    return SITUATIONS + meanings + table(("tracer", *MEANINGS), rows) + REASONS + reasons + "\n"


def _cell(outcome: str | None, numbers: Mapping[str, int]) -> str:
    if outcome is None:
        return ""
    if outcome in numbers:
        return f"✗ {numbers[outcome]}"
    words = {READ: "✓", NOT_TRACED: "no span"}
    return words.get(outcome, f"✓ {outcome.removeprefix(READ).strip()}")
