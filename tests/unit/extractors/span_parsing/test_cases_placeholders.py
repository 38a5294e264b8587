"""Placeholders and cut values: what a tracer's privacy or length limit left is not what was said."""

import json
from typing import Any

import pytest

from extractors.span_parsing.drop_reasons import DropReason
from tests.support.conversations import Turn, read_turns, refuse
from tests.support.flat_attributes import (
    write_call,
    write_genai,
    write_indexed,
    write_llm,
    write_part,
    write_text,
)

HIDDEN = "__REDACTED__"
ASKED = {"role": "user", "content": "Who owns the blue yawl?"}
ANSWER = "The harbour master."


def test_an_answer_that_is_hidden_is_not_learned() -> None:
    attributes = write_llm([ASKED], body={"messages": [ASKED]}) | {"output.value": HIDDEN}
    assert refuse(attributes) is DropReason.NO_ANSWER


def test_a_prompt_that_is_hidden_is_not_learned() -> None:
    attributes = write_llm(None, ANSWER) | {"input.value": HIDDEN, "output.value": ANSWER}
    assert refuse(attributes) is DropReason.NO_PROMPT


def test_texts_that_are_all_hidden_are_not_learned() -> None:
    listed = [{"role": "system", "content": HIDDEN}, {"role": "user", "contents": [write_text(HIDDEN)]}]
    assert refuse(write_llm(listed, HIDDEN) | {"input.value": HIDDEN}) is DropReason.NO_PROMPT


CALLED = {"role": "assistant", "tool_calls": [write_call("o1", "find_owner", boat="yawl")]}
HIDDEN_CALL = {"id": "o1", "function": {"name": "find_owner", "arguments": HIDDEN}}
FOUND = {"role": "tool", "content": "harbour master", "tool_call_id": "o1"}


@pytest.mark.parametrize(
    "listed",
    [
        [{"role": "system", "content": HIDDEN}, ASKED],
        [{"role": "user", "content": HIDDEN}, {"role": "assistant", "content": "Which boat?"}, ASKED],
        [ASKED, {"role": "assistant", "content": HIDDEN}, {"role": "user", "content": "The blue one."}],
        [
            ASKED,
            {"role": "assistant", "contents": [write_text(HIDDEN)]},
            {"role": "user", "content": "Blue."},
        ],
        [ASKED, CALLED, {**FOUND, "content": HIDDEN}],
        [ASKED, {**CALLED, "tool_calls": [HIDDEN_CALL]}, FOUND],
        [
            ASKED,
            {**CALLED, "tool_calls": [write_call("o1", "find_owner", boat=HIDDEN)]},
            FOUND,
        ],
    ],
    ids=["system", "user", "assistant", "part", "result", "arguments", "argument"],
)
def test_one_hidden_text_in_the_history_refuses(listed: list[dict[str, Any]]) -> None:
    assert refuse(write_llm(listed, ANSWER)) is DropReason.REDACTED
    body = {"messages": [{"content": None, **message} for message in listed if "contents" not in message]}
    if len(body["messages"]) == len(listed):
        assert refuse(write_llm(None, ANSWER, body=body)) is DropReason.REDACTED


def test_hidden_texts_beside_a_body_that_has_them_refuse() -> None:
    """The team hid them: that another record forgot to is no leave to learn them."""
    listed = [{"role": "user", "content": HIDDEN}]
    assert refuse(write_llm(listed, ANSWER, body={"messages": [ASKED]})) is DropReason.REDACTED


@pytest.mark.parametrize(
    "attributes",
    [
        write_genai([{"role": "user", "parts": [write_part(HIDDEN)]}], ANSWER),
        write_indexed([{"role": "user", "content": HIDDEN}], ANSWER),
    ],
    ids=["genai", "indexed"],
)
def test_a_hidden_prompt_of_any_convention_is_none(attributes: dict[str, Any]) -> None:
    assert refuse(attributes) is DropReason.NO_PROMPT


@pytest.mark.parametrize(
    "attributes",
    [
        write_genai([{"role": "user", "parts": [write_part("Who?")]}], HIDDEN),
        write_indexed([{"role": "user", "content": "Who?"}], HIDDEN),
    ],
    ids=["genai", "indexed"],
)
def test_a_hidden_answer_of_any_convention_is_none(attributes: dict[str, Any]) -> None:
    assert refuse(attributes) is DropReason.NO_ANSWER


def test_a_hidden_answer_that_calls_a_tool_refuses() -> None:
    assert refuse(write_llm([ASKED], {**CALLED, "tool_calls": [HIDDEN_CALL]})) is DropReason.REDACTED
    assert refuse(write_llm([ASKED], {**CALLED, "content": HIDDEN})) is DropReason.REDACTED


def test_hidden_tool_definitions_refuse() -> None:
    attributes = write_llm([ASKED], ANSWER) | {"llm.tools.0.tool.json_schema": HIDDEN}
    assert refuse(attributes) is DropReason.REDACTED


def test_hidden_parameters_hide_nothing_that_was_said() -> None:
    attributes = write_llm([ASKED], ANSWER) | {"llm.invocation_parameters": HIDDEN}
    assert read_turns(attributes) == [Turn("user", ASKED["content"]), Turn("assistant", ANSWER)]


# Cut values.

LONG = " ".join(f"Moor number {n} lies behind the pier and is deep enough." for n in range(40))
LETTER = " ".join(f"Dear owner {n}, your boat drifts towards the beacon." for n in range(40))


def cut(attributes: dict[str, Any], most: int) -> dict[str, Any]:
    """What an SDK leaves of attributes whose values have a limit."""
    return {key: value[:most] if isinstance(value, str) else value for key, value in attributes.items()}


def write_letter() -> dict[str, Any]:
    messages = [{"role": "system", "content": "Write letters."}, {"role": "user", "content": LONG}]
    output = {"choices": [{"index": 0, "message": {"role": "assistant", "content": LETTER}}]}
    return write_llm(messages, LETTER, body={"model": "m", "messages": messages}, output=output)


@pytest.mark.parametrize("most", [128, 256, 500, 1000])
def test_values_that_end_at_one_length_are_cut(most: int) -> None:
    assert refuse(cut(write_letter(), most)) is DropReason.VALUE_CUT


def test_an_answer_alone_that_is_cut_refuses() -> None:
    output = {"choices": [{"index": 0, "message": {"role": "assistant", "content": LETTER}}]}
    attributes = write_llm([ASKED], LETTER, body={"messages": [ASKED]}, output=output)
    assert refuse(cut(attributes, 700)) is DropReason.VALUE_CUT


def test_texts_that_are_cut_where_no_json_is_refuse() -> None:
    listed = [{"role": "system", "content": LONG}, {"role": "user", "content": f"Read this. {LETTER}"}]
    assert refuse(cut(write_llm(listed, "Read."), 256)) is DropReason.VALUE_CUT


def test_messages_in_json_that_is_cut_refuse() -> None:
    attributes = write_genai([{"role": "user", "parts": [write_part(LONG)]}], "Deep enough.")
    assert refuse(cut(attributes, 512)) is DropReason.VALUE_CUT


def test_an_answer_in_json_that_is_cut_refuses() -> None:
    attributes = write_genai([{"role": "user", "parts": [write_part("Write.")]}], LETTER)
    assert refuse(cut(attributes, 512)) is DropReason.VALUE_CUT


def test_indexed_texts_that_are_cut_refuse() -> None:
    attributes = write_indexed([{"role": "user", "content": LONG}], LETTER)
    assert refuse(cut(attributes, 256)) is DropReason.VALUE_CUT


@pytest.mark.parametrize("place", ["history", "answer"])
def test_arguments_that_are_cut_refuse(place: str) -> None:
    long_call = {"role": "assistant", "tool_calls": [write_call("o1", "send_letter", text=LETTER)]}
    if place == "answer":
        attributes = write_llm([ASKED], long_call)
    else:
        attributes = write_llm([ASKED, long_call, FOUND], "Sent.")
    assert refuse(cut(attributes, 256)) in {
        DropReason.VALUE_CUT,
        DropReason.CUT_OFF,
        DropReason.BROKEN_ARGUMENTS,
    }


def test_a_body_that_was_cut_beside_listed_texts_that_were_not_tells_the_same() -> None:
    """Each message is far from the limit that the body met."""
    said = [{"role": "assistant" if n % 2 else "user", "content": f"Buoy {n} is lit."} for n in range(41)]
    attributes = cut(write_llm(said, "Good night.", body={"messages": said}), 1000)
    assert len(attributes["input.value"]) == 1000
    turns = read_turns(attributes)
    assert [turn.text for turn in turns] == [*(message["content"] for message in said), "Good night."]


def test_long_texts_of_several_lengths_are_whole() -> None:
    listed = [{"role": "system", "content": LONG[:900]}, {"role": "user", "content": LETTER[:1030]}]
    answer = LETTER[:777]
    assert [turn.text for turn in read_turns(write_llm(listed, answer))] == [
        LONG[:900].strip(),
        LETTER[:1030].strip(),
        answer.strip(),
    ]


def test_an_answer_of_json_that_is_whole_is_no_cut() -> None:
    answer = json.dumps({"owner": "harbour master", "boats": ["yawl"]})
    assert read_turns(write_llm([ASKED], answer))[-1] == Turn("assistant", answer)
