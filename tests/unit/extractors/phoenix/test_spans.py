"""The filter that tells the target's calls from other spans."""

from typing import Any

import pytest

from extractors.phoenix.spans import SpanFilter, add_events, lacks_messages, matches
from tests.support.traffic import openinference, span


def test_kind_name_and_attributes_must_all_be_as_wanted() -> None:
    call = span(name="route", attributes=openinference(("user", "hi"), metadata={"agent": "router"}))
    assert matches(call, SpanFilter(name="route", attributes={"metadata.agent": "router"}))
    assert not matches(call, SpanFilter(name="other"))
    assert not matches(call, SpanFilter(attributes={"metadata.agent": "writer"}))
    assert not matches(call, SpanFilter(kind="TOOL"))


def test_a_call_whose_tracer_lost_the_kind_is_still_a_call() -> None:
    assert matches(span(kind="UNKNOWN"), SpanFilter())
    assert matches(span(kind="UNKNOWN", attributes={"gen_ai": {"request": {"model": "m"}}}), SpanFilter())


@pytest.mark.parametrize("attributes", [{}, {"input": {"value": "hi"}}])
def test_a_span_of_unknown_kind_without_a_models_attributes_is_no_call(attributes: dict[str, object]) -> None:
    assert not matches(span(kind="UNKNOWN", attributes=attributes), SpanFilter())
    assert not matches(span(kind="UNKNOWN"), SpanFilter(kind="TOOL"))


def test_of_the_spans_of_one_vercel_call_only_the_request_to_the_model_is_a_call() -> None:
    outer = {
        "ai": {"operationId": "ai.generateText", "prompt": '{"prompt": "hi"}', "response": {"text": "ho"}}
    }
    request = {"ai": {"operationId": "ai.generateText.doGenerate", "prompt": {"messages": "[]"}}}
    tool = {"ai": {"operationId": "ai.toolCall", "toolCall": {"name": "find", "args": "{}"}}}
    found = [matches(span(kind="UNKNOWN", attributes=each), SpanFilter()) for each in (outer, request, tool)]
    assert found == [False, True, False]


GENAI = {"gen_ai": {"operation": {"name": "chat"}, "request": {"model": "m"}}}
EVENT = {"name": "gen_ai.user.message", "attributes": {"content": "hi", "gen_ai.system": "acme"}}


@pytest.mark.parametrize(
    ("attributes", "lacks"),
    [
        (GENAI, True),
        ({**GENAI, "input": {"value": "hi"}}, True),
        ({**GENAI, "input": {"value": "hi"}, "output": {"value": "ho"}}, False),
        ({"gen_ai": {"prompt": [{"content": "hi"}], "completion": [{"content": "ho"}]}}, False),
        ({"gen_ai": {"input": {"messages": "[]"}, "output": {"messages": "[]"}}}, False),
        ({**GENAI, **openinference(("user", "hi"))}, False),
        ({**GENAI, "ai": {"prompt": {"messages": "[]"}}}, False),
        ({**GENAI, "events": '[{"event.name": "gen_ai.user.message"}]'}, False),
        ({"llm": {"model_name": "m"}}, False),
    ],
)
def test_events_are_wanted_only_where_a_genai_spans_attributes_lack_a_side_of_the_conversation(
    attributes: dict[str, Any], lacks: bool
) -> None:
    assert lacks_messages(attributes) is lacks
    assert ("events" in add_events(span(attributes=attributes), [EVENT]).attributes) is (
        lacks or "events" in attributes
    )


def test_only_genai_events_are_kept_and_in_their_order() -> None:
    others = [{"name": "exception", "attributes": {"exception.message": "boom"}}]
    choice = {"name": "gen_ai.choice", "attributes": {"index": 0}}
    kept = add_events(span(attributes=GENAI), [EVENT, *others, choice, EVENT])
    assert kept.attributes == {**GENAI, "events": [EVENT, choice, EVENT]}
    assert add_events(span(attributes=GENAI), others).attributes == GENAI
