"""Alternatives: several answers to one request are never joined to one, also when they call tools."""

import json
from typing import Any

import pytest

from extractors.span_parsing.drop_reasons import DropReason
from tests.support.conversations import Call, Turn, read_turns, refuse
from tests.support.flat_attributes import (
    write_call,
    write_genai,
    write_indexed,
    write_llm,
    write_part,
    write_text,
)

ASK = "Sail or motor?"
ASKED = {"role": "user", "content": ASK}
SAIL = {"role": "assistant", "tool_calls": [write_call("a1", "hoist", sail="jib")]}
MOTOR = {"role": "assistant", "tool_calls": [write_call("a2", "start_motor", gear=1)]}
TEXT = {"role": "assistant", "content": "Sail."}
OTHER_TEXT = {"role": "assistant", "content": "Motor."}
PAIRS = {
    "two-calls": (SAIL, MOTOR),
    "two-texts": (TEXT, OTHER_TEXT),
    "text-and-call": (TEXT, MOTOR),
    "call-and-text": (SAIL, OTHER_TEXT),
}
PAIR = pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
Pair = tuple[dict[str, Any], ...]


def write_choices(pair: Pair) -> dict[str, Any]:
    choices = [
        {"index": n, "finish_reason": "stop", "message": {"content": None, **message}}
        for n, message in enumerate(pair)
    ]
    return {"choices": choices}


@PAIR
def test_listed_answers_of_a_request_for_two_are_several(pair: Pair) -> None:
    body = {"model": "m", "n": 2, "messages": [ASKED]}
    attributes = write_llm([ASKED], list(pair), body=body, llm__invocation_parameters='{"n": 2}')
    assert refuse(attributes) is DropReason.SEVERAL_ANSWERS


@PAIR
@pytest.mark.parametrize("place", ["body", "parameters", "output"])
def test_one_record_that_tells_of_two_is_enough(pair: Pair, place: str) -> None:
    given = {
        "body": {"body": {"n": 2, "messages": [ASKED]}},
        "parameters": {"llm__invocation_parameters": '{"n": 2}'},
        "output": {"output": write_choices(pair)},
    }
    assert refuse(write_llm([ASKED], list(pair), **given[place])) is DropReason.SEVERAL_ANSWERS


@PAIR
def test_choices_of_a_body_are_several(pair: Pair) -> None:
    attributes = write_llm(None, None, body={"n": 2, "messages": [ASKED]}, output=write_choices(pair))
    assert refuse(attributes) is DropReason.SEVERAL_ANSWERS


@PAIR
def test_choices_of_which_one_is_listed_are_several(pair: Pair) -> None:
    attributes = write_llm([ASKED], pair[0], body={"messages": [ASKED]}, output=write_choices(pair))
    assert refuse(attributes) in {DropReason.SEVERAL_ANSWERS, DropReason.ANSWERS_DIFFER}


def to_parts(message: dict[str, Any]) -> dict[str, Any]:
    parts = [write_part(message["content"])] if "content" in message else []
    for call in message.get("tool_calls", []):
        function = call["function"]
        arguments = json.loads(function["arguments"])
        parts.append(
            {"type": "tool_call", "id": call["id"], "name": function["name"], "arguments": arguments}
        )
    return {"role": "assistant", "parts": parts, "finish_reason": "stop"}


@PAIR
def test_genai_output_messages_are_several(pair: Pair) -> None:
    messages = [{"role": "user", "parts": [write_part(ASK)]}]
    answers = [to_parts(message) for message in pair]
    assert refuse(write_genai(messages, answers)) is DropReason.SEVERAL_ANSWERS
    counted = write_genai(messages, answers, gen_ai__request__choice__count=2)
    assert refuse(counted) is DropReason.SEVERAL_ANSWERS


@PAIR
def test_indexed_completions_are_several(pair: Pair) -> None:
    answers = []
    for message in pair:
        flat = {"role": "assistant", "content": message.get("content"), "finish_reason": "stop"}
        calls = [{"id": call["id"], **call["function"]} for call in message.get("tool_calls", [])]
        answers.append(flat | ({"tool_calls": calls} if calls else {}))
    assert refuse(write_indexed([ASKED], answers)) is DropReason.SEVERAL_ANSWERS


@PAIR
def test_langchain_generations_are_several(pair: Pair) -> None:
    def serialise(message: dict[str, Any]) -> dict[str, Any]:
        calls = [
            {"name": c["function"]["name"], "args": json.loads(c["function"]["arguments"]), "id": c["id"]}
            for c in message.get("tool_calls", [])
        ]
        kwargs = {"type": "ai", "content": message.get("content", ""), "tool_calls": calls}
        return {"text": kwargs["content"], "message": {"lc": 1, "type": "constructor", "kwargs": kwargs}}

    output = {"generations": [[serialise(message) for message in pair]]}
    assert refuse(write_llm([ASKED], list(pair), output=output)) is DropReason.SEVERAL_ANSWERS
    assert refuse(write_llm([ASKED], None, output=output)) is DropReason.SEVERAL_ANSWERS


def test_gemini_candidates_are_several() -> None:
    candidates = [
        {
            "content": {
                "role": "model",
                "parts": [{"functionCall": {"name": "hoist", "args": {"sail": "jib"}}}],
            }
        },
        {"content": {"role": "model", "parts": [{"text": "Motor."}]}},
    ]
    body = {"contents": [{"role": "user", "parts": [{"text": ASK}]}], "config": {"candidateCount": 2}}
    attributes = write_llm([ASKED], [SAIL, OTHER_TEXT], body=body, output={"candidates": candidates})
    assert refuse(attributes) is DropReason.SEVERAL_ANSWERS


def test_choices_of_a_completion_are_several() -> None:
    attributes = write_llm(None, None) | {
        "llm.prompts.0.prompt.text": ASK,
        "llm.choices.0.completion.text": "Sail.",
        "llm.choices.1.completion.text": "Motor.",
    }
    assert refuse(attributes) is DropReason.SEVERAL_ANSWERS


def test_two_ends_are_the_ends_of_two_answers() -> None:
    messages = [{"role": "user", "parts": [write_part(ASK)]}]
    attributes = write_genai(messages, "Sail.", gen_ai__response__finish_reasons=["stop", "stop"])
    assert refuse(attributes) in {DropReason.SEVERAL_ANSWERS, DropReason.ANSWERS_DIFFER}


def test_one_choice_that_was_asked_for_is_one_answer() -> None:
    body = {"model": "m", "n": 1, "messages": [ASKED]}
    attributes = write_llm([ASKED], TEXT, body=body, output=write_choices((TEXT,)))
    assert read_turns(attributes) == [Turn("user", ASK), Turn("assistant", "Sail.")]


def test_two_items_of_one_response_that_say_two_things_are_several() -> None:
    answers = [
        {"role": "assistant", "contents": [write_text("First the wind.")]},
        {"role": "assistant", "contents": [write_text("Sail, then.")]},
    ]
    attributes = write_llm([{}, ASKED], answers, body={"model": "m", "input": ASK})
    assert refuse(attributes) is DropReason.SEVERAL_ANSWERS


def test_parallel_calls_of_one_answer_are_one_answer() -> None:
    both = {"role": "assistant", "tool_calls": [*SAIL["tool_calls"], *MOTOR["tool_calls"]]}
    attributes = write_llm([ASKED], both, body={"messages": [ASKED]}, output=write_choices((both,)))
    calls = (Call("hoist", {"sail": "jib"}), Call("start_motor", {"gear": 1}))
    assert read_turns(attributes)[-1] == Turn("assistant", calls=calls)
