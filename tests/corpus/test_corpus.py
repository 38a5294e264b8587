"""Recorded traffic is read as what was really said, or refused with a reason that somebody looked at."""

from typing import Any

import pytest

from extractors.examples.types import Message, ToolCall
from extractors.span_parsing.calls import ModelCall, read_call
from extractors.span_parsing.drop_reasons import DropReason
from tests.corpus.compare import find_untruths
from tests.corpus.outcomes import find_outcomes
from tests.corpus.record import CONSTRAINTS, FAMILIES
from tests.corpus.recorded import (
    READ,
    RECORDINGS,
    TRACERS,
    UNLEARNABLE,
    read_expected,
    read_truth,
    read_versions,
)
from tests.corpus.replay import replay

TURNS = ("plain", "parallel calls", "tool results", "streamed", "error", "retry", "image")
"""The first conversation, in order: five turns, of which one calls tools and one is asked again."""


@pytest.mark.parametrize("tracer", TRACERS)
def test_what_is_read_is_what_was_said(tracer: str) -> None:
    untruths = {}
    for traced in replay(tracer):
        reading = read_call(traced.span)
        if not isinstance(reading, DropReason):
            untruths[traced.call.situation] = find_untruths(reading, traced.call)
    assert {situation: found for situation, found in untruths.items() if found} == {}


@pytest.mark.parametrize("tracer", TRACERS)
def test_each_situation_is_read_or_refused_as_the_table_says(tracer: str) -> None:
    assert find_outcomes(tracer) == read_expected()[tracer]


@pytest.mark.parametrize("tracer", TRACERS)
def test_a_call_that_no_text_model_may_learn_from_is_never_read(tracer: str) -> None:
    outcomes = find_outcomes(tracer)
    assert {situation for situation in UNLEARNABLE if outcomes.get(situation, "").startswith(READ)} == set()


@pytest.mark.parametrize("tracer", TRACERS)
def test_a_recording_has_the_five_turns_and_the_pinned_versions(tracer: str) -> None:
    assert tuple(call.situation for call in read_truth(tracer))[: len(TURNS)] == TURNS
    pinned = dict(line.split("==") for line in CONSTRAINTS.read_text("utf-8").splitlines() if "==" in line)
    versions = read_versions(tracer)
    assert versions
    assert versions == {package: pinned[package] for package in versions}


def test_every_tracer_that_can_be_recorded_is() -> None:
    named = {
        tracer for family in FAMILIES.values() for tracers in family.tracers.values() for tracer in tracers
    }
    assert named == set(TRACERS) == set(read_expected())


def test_no_recording_names_the_machine_that_recorded() -> None:
    for path in RECORDINGS.iterdir():
        text = path.read_text("utf-8")
        assert not [
            word for word in ("site-packages", "Traceback (most", "/home/", "host.name") if word in text
        ]


def test_a_call_is_served_in_the_time_of_one_span() -> None:
    """Each span is compared with the call in its time: no two spans may share one."""
    for tracer in TRACERS:
        times = [traced.call.received_at for traced in replay(tracer)]
        assert len(times) == len(set(times)), tracer


@pytest.mark.parametrize(
    ("change", "untruth"),
    [
        ({"prompt": ()}, "the roles are"),
        ({"response": Message(role="assistant", content="Channel 13.")}, "the answer says"),
        ({"tools": ({"type": "function", "function": {"name": "other"}},)}, "the tools are"),
        (
            {"response": Message(role="assistant", tool_calls=(ToolCall(name="other", arguments="{}"),))},
            "the answer calls",
        ),
    ],
)
def test_the_comparison_notices_what_differs(change: dict[str, Any], untruth: str) -> None:
    traced = replay("openinference-openai-chat")[0]
    reading = read_call(traced.span)
    assert isinstance(reading, ModelCall)
    assert find_untruths(reading, traced.call) == []
    assert any(
        found.startswith(untruth) for found in find_untruths(reading.model_copy(update=change), traced.call)
    )


def test_the_comparison_notices_results_that_changed_places() -> None:
    traced = next(
        each for each in replay("openinference-openai-chat") if each.call.situation == "tool results"
    )
    reading = read_call(traced.span)
    assert isinstance(reading, ModelCall)
    *before, first, second = reading.prompt
    swapped = (
        *before,
        first.model_copy(update={"tool_call_id": second.tool_call_id}),
        second.model_copy(update={"tool_call_id": first.tool_call_id}),
    )
    untruths = find_untruths(reading.model_copy(update={"prompt": swapped}), traced.call)
    assert untruths == ["a tool's result belongs to another call"]
