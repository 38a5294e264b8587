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
    read_versions,
)
from tests.corpus.script import ANSWERS

INTRO = """# Tracers

A scripted agent was recorded under each of these tracers, against a stand-in for its provider that wrote down
what was really said. learnd's tests replay the recordings through Phoenix's own decoder and compare: what is
read must equal what was said. A trace from which that cannot be had is refused, counted, and named by
`learnd data summary` with its reason; it never becomes training data.

- **in full**: every call that a text model can learn from is read, with its tools.
- **in part**: some calls are refused, or are read without the tools that were offered.
- **refused**: no call is read.

Other versions of a tracer may write other traces. What learnd cannot read, it refuses.

"""
SITUATIONS = """## What is read, call by call

✓ is read in full, ✗ refused for the reason of that number below. Calls that failed, have an image, were cut
off or have several answers are always refused.

"""
REASONS = "Reasons:\n\n"
SETUP = frozenset({"before reference"})
"""Situations that only prepare another."""


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
        )
        for tracer in TRACERS
    ]
    return table(("tracer", "read", "recorded with"), rows)


def _situations(expected: Mapping[str, Mapping[str, str]], numbers: Mapping[str, int]) -> str:
    columns = [situation for situation in ANSWERS if situation not in SETUP]
    rows = [
        (tracer, *(_cell(expected[tracer].get(situation), numbers) for situation in columns))
        for tracer in TRACERS
    ]
    reasons = "".join(f"{number}. {DropReason[name].value}\n" for name, number in numbers.items())
    return SITUATIONS + table(("tracer", *columns), rows) + REASONS + reasons + "\n"


def _cell(outcome: str | None, numbers: Mapping[str, int]) -> str:
    if outcome is None:
        return ""
    if outcome in numbers:
        return f"✗ {numbers[outcome]}"
    words = {READ: "✓", NOT_TRACED: "no span"}
    return words.get(outcome, f"✓ {outcome.removeprefix(READ).strip()}")
