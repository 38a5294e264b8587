"""Tests of one call that several instrumentors traced, and of several calls that answer alike."""

import json
from typing import Any

import pytest

from extractors.examples.types import Message, ToolCall
from extractors.feedback.extract import extract
from extractors.feedback.rules import FeedbackRules
from extractors.phoenix.spans import Span
from extractors.span_parsing.calls import ModelCall
from extractors.span_parsing.merge import Ancestry, merge_traced_twice
from tests.support.traffic import annotation, openinference, span

COMPACT = '{"port":"Ålesund","berths":2}'
SPACED = json.dumps({"berths": 2.0, "port": "Ålesund"}, indent=1)
ASK = (("user", "A berth in Ålesund?"),)


def write_call(arguments: str, *, call_id: str | None = "c1", name: str = "book") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    named = {} if call_id is None else {"id": call_id}
    return {"message": {"role": "assistant", "tool_calls": [{"tool_call": {**named, "function": function}}]}}


def trace(span_id: str, answer: str | dict[str, Any] = "Yes.", minute: float = 0, **changes: Any) -> Span:
    """A span of the trace `t`; `prompt` and `name` may be given."""
    attributes = openinference(*changes.pop("prompt", ASK))
    attributes["llm"]["output_messages"] = [
        answer if isinstance(answer, dict) else {"message": {"role": "assistant", "content": answer}}
    ]
    return span(span_id, minute, trace_id="t", attributes=attributes, **changes)


def list_calls(*spans: Span) -> list[tuple[str, ...]]:
    """Span ids of the calls of the trace `t`, all of which are approved."""
    found = extract(spans, [annotation("t", level="trace")], FeedbackRules(inherit="all"))
    repeated = list(found.dropped_spans.values())
    return sorted([item.source_span_ids for item in found.items] + repeated)


@pytest.mark.parametrize("parent", ["outer", None], ids=["nested", "side-by-side"])
@pytest.mark.parametrize("inner_id", ["c1", None], ids=["same-id", "no-id"])
def test_a_call_is_one_however_its_arguments_were_written(parent: str | None, inner_id: str | None) -> None:
    outer = trace("outer", write_call(SPACED), name="ChatModel")
    inner = trace("inner", write_call(COMPACT, call_id=inner_id), 0.1, name="Completion", parent_id=parent)
    found = extract([outer, inner], [annotation("t", level="trace")], FeedbackRules())
    [item] = found.items
    assert item.source_span_ids == ("outer", "inner")
    assert item.response.tool_calls[0].arguments == COMPACT


def test_prompts_of_one_call_may_differ_in_ids_white_space_and_the_way_json_is_written() -> None:
    def ask(arguments: str, call_id: str | None, result: str) -> list[dict[str, Any]]:
        asked = {"message": {"role": "user", "content": "A berth?" if call_id else " A  berth?\n"}}
        answer = {"message": {"role": "tool", "content": result, "tool_call_id": call_id or "x"}}
        return [asked, write_call(arguments, call_id=call_id or "x"), answer]

    some, other = trace("a", name="ChatModel"), trace("b", minute=0.1)
    some.attributes["llm"]["input_messages"] = ask(SPACED, None, '{"free": true, "berths": [1, 2]}')
    other.attributes["llm"]["input_messages"] = ask(COMPACT, "c7", '{"berths":[1,2],"free":true}')
    assert list_calls(some, other) == [("a", "b")]


def test_a_call_that_three_spans_traced_is_one() -> None:
    chain = trace("outer", write_call(SPACED), name="ChatModel")
    middle = trace("middle", write_call(COMPACT), 0.1, parent_id="outer", name="proxy")
    inner = trace("inner", write_call(COMPACT), 0.2, parent_id="middle")
    assert list_calls(chain, middle, inner) == [("outer", "middle", "inner")]
    beside = inner.model_copy(update={"parent_id": None})
    assert list_calls(chain, middle, beside) == [("outer", "middle", "inner")]
    under_one = inner.model_copy(update={"parent_id": "outer"})
    assert list_calls(chain, middle, under_one) == [("outer", "middle", "inner")]


def test_parallel_attempts_with_equal_answers_are_several_calls() -> None:
    assert list_calls(trace("a"), trace("b")) == [("a",), ("b",)]
    by_id = [trace(each, write_call(COMPACT, call_id=each), name=each) for each in ("a", "b")]
    assert list_calls(*by_id) == [("a",), ("b",)]


def test_parallel_attempts_that_two_instrumentors_traced_are_as_many_calls_as_the_model_got() -> None:
    attempts = [trace(f"outer{n}", "Yes.", n / 100, name="ChatModel") for n in (1, 2)]
    inner = [trace(f"inner{n}", "Yes.", n / 100 + 0.05, parent_id=f"outer{n}") for n in (2, 1)]
    assert list_calls(*attempts, *inner) == [("outer1", "inner1"), ("outer2", "inner2")]


def test_of_two_attempts_below_one_span_the_last_gave_its_answer() -> None:
    outer = trace("outer", name="retrying")
    tries = [trace(f"try{n}", minute=n, parent_id="outer") for n in (1, 2)]
    assert list_calls(outer, *tries) == [("outer", "try2"), ("try1",)]


def test_calls_that_call_different_tools_or_give_them_something_else_are_not_one() -> None:
    one, other = (
        trace("a", write_call(COMPACT)),
        trace("b", write_call('{"port":"Bodø","berths":2}'), name="x"),
    )
    assert list_calls(one, other) == [("a",), ("b",)]


def test_thoughts_do_not_part_two_records_of_one_call_and_are_kept() -> None:
    known = {"trace_id": "t", "session_id": None, "started_at": span().started_at, "answered_by": None}
    prompt = (Message(role="user", content="A berth?"),)
    called = ToolCall(name="book", arguments="{}")
    thinking = Message(role="assistant", tool_calls=(called,), reasoning="Two are free.")
    silent = Message(role="assistant", tool_calls=(called.model_copy(update={"arguments": ""}),))
    calls = [
        ModelCall(span_ids=("a",), prompt=prompt, response=thinking, **known),
        ModelCall(span_ids=("b",), prompt=prompt, response=silent, **known),
    ]
    [merged] = merge_traced_twice(calls, Ancestry([span("a", trace_id="t"), span("b", parent_id="a")]))
    assert (merged.span_ids, merged.response.reasoning) == (("a", "b"), "Two are free.")
