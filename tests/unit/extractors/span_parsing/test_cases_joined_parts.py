"""Parts of one turn: texts of an answer join to one, thoughts stay apart, items of a turn are one message."""

import json
from typing import Any

import pytest

from tests.support.conversations import Call, Turn, read, read_turns
from tests.support.flat_attributes import write_call, write_genai, write_llm, write_part, write_text

ASK = "How deep is the lock?"
ASKED = {"role": "user", "content": ASK}
PIECES = ["The lock is ", "4.1 m deep", ", says the chart."]
JOINED = "The lock is 4.1 m deep, says the chart."
BODY = {"model": "m", "messages": [ASKED]}


def test_pieces_of_an_answer_are_one_text() -> None:
    answer = {"role": "assistant", "contents": [write_text(piece) for piece in PIECES]}
    assert read(write_llm([ASKED], answer, body=BODY)).response.content == JOINED


def test_pieces_in_the_body_of_an_answer_are_one_text() -> None:
    output = {"type": "message", "role": "assistant", "content": [write_text(piece) for piece in PIECES]}
    answer = {"role": "assistant", "contents": output["content"]}
    assert read(write_llm([ASKED], answer, body=BODY, output=output)).response.content == JOINED
    assert read(write_llm([ASKED], None, body=BODY, output=output)).response.content == JOINED


def test_pieces_of_a_genai_answer_are_one_text() -> None:
    answer = {"role": "assistant", "parts": [write_part(piece) for piece in PIECES], "finish_reason": "stop"}
    attributes = write_genai([{"role": "user", "parts": [write_part(ASK)]}], answer)
    assert read(attributes).response.content == JOINED


def test_pieces_of_an_earlier_answer_are_one_text() -> None:
    said = {"role": "assistant", "contents": [write_text(piece) for piece in PIECES]}
    attributes = write_llm([ASKED, said, {"role": "user", "content": "Sure?"}], "Sure.")
    assert read(attributes).prompt[1].content == JOINED


def test_parts_of_a_question_stand_on_lines_of_their_own() -> None:
    asked = {"role": "user", "contents": [write_text("How deep is it?"), write_text("In metres.")]}
    assert read(write_llm([asked], "4.1")).prompt[0].content == "How deep is it?\nIn metres."


def test_a_second_text_that_only_one_record_has_and_calls_a_thought_is_no_answer() -> None:
    """The body's answer is the first part alone: the second is what the model thought."""
    asked = {"role": "user", "contents": [write_text("17 + 4, just the number")]}
    thought = {
        "role": "assistant",
        "contents": [write_text("21"), write_text("17 and 4 make 21; the number alone.")],
    }
    output = {"role": "assistant", "content": "21", "tool_calls": None, "token_usage": {"output_tokens": 31}}
    body = {"messages": [{"role": "user", "content": "17 + 4, just the number"}]}
    turns = read_turns(write_llm([asked], thought, body=body, output=output))
    assert turns == [Turn("user", "17 + 4, just the number"), Turn("assistant", "21")]


THOUGHT = "The chart knows."


@pytest.mark.parametrize(
    "attributes",
    [
        write_llm(
            [ASKED],
            {"role": "assistant", "contents": [{"type": "reasoning", "text": THOUGHT}, write_text(JOINED)]},
        ),
        write_llm(
            [ASKED],
            None,
            body=BODY,
            output={
                "role": "assistant",
                "content": [{"type": "thinking", "thinking": THOUGHT, "signature": "s"}, write_text(JOINED)],
            },
        ),
        write_llm(
            [ASKED],
            JOINED,
            body=BODY,
            output={
                "choices": [
                    {"message": {"role": "assistant", "content": JOINED, "reasoning_content": THOUGHT}}
                ]
            },
        ),
        write_genai(
            [{"role": "user", "parts": [write_part(ASK)]}],
            {"role": "assistant", "parts": [{"type": "reasoning", "content": THOUGHT}, write_part(JOINED)]},
        ),
        write_genai(
            [{"role": "user", "parts": [write_part(ASK)]}],
            {"role": "assistant", "parts": [{"type": "thinking", "content": THOUGHT}, write_part(JOINED)]},
        ),
    ],
    ids=["listed", "anthropic-body", "chat-body", "genai-reasoning", "genai-thinking"],
)
def test_thoughts_are_kept_apart_from_the_answer(attributes: dict[str, Any]) -> None:
    answer = read(attributes).response
    assert (answer.content, answer.reasoning) == (JOINED, THOUGHT)


def test_thoughts_of_gemini_are_no_answer() -> None:
    parts = [{"text": THOUGHT, "thought": True}, {"text": JOINED}]
    output = {"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}]}
    body = {"contents": [{"role": "user", "parts": [{"text": ASK}]}]}
    assert read(write_llm(None, None, body=body, output=output)).response.content == JOINED


def test_thoughts_that_are_hidden_by_the_provider_hide_no_answer() -> None:
    hidden = [{"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3pzix"}, write_text(JOINED)]
    output = {"role": "assistant", "content": hidden, "stop_reason": "end_turn"}
    assert read(write_llm([ASKED], JOINED, body=BODY, output=output)).response.content == JOINED


def test_thoughts_of_an_earlier_turn_are_not_among_its_words() -> None:
    said = [{"type": "thinking", "thinking": THOUGHT, "signature": "s"}, write_text("4.1 m.")]
    again = {"role": "user", "content": "Sure?"}
    body = {"messages": [ASKED, {"role": "assistant", "content": said}, again]}
    listed = [ASKED, {"role": "assistant", "contents": [None, write_text("4.1 m.")]}, again]
    assert read_turns(write_llm(listed, "Sure.", body=body))[1] == Turn("assistant", "4.1 m.")


# Items of the Responses API.

LOCK, TIDE = Call("read_lock", {"lock": 2}), Call("read_tide", {"port": "Emden"})
SCHEMAS = [
    {"type": "function", "name": "read_lock", "parameters": {"type": "object"}, "strict": True},
    {"type": "function", "name": "read_tide", "parameters": {"type": "object"}, "strict": True},
]


def item_call(call_id: str, name: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": json.dumps(arguments)}


def item_output(call_id: str, output: str) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def item_message(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


ITEMS = [
    ASKED,
    item_call("l1", "read_lock", lock=2),
    item_call("l2", "read_tide", port="Emden"),
    item_output("l1", "4.1"),
    item_output("l2", "falling"),
]
LISTED = [
    ASKED,
    {"role": "assistant", "tool_calls": [write_call("l1", "read_lock", lock=2)]},
    {"role": "assistant", "tool_calls": [write_call("l2", "read_tide", port="Emden")]},
    {"role": "tool", "content": "4.1", "tool_call_id": "l1"},
    {"role": "tool", "content": "falling", "tool_call_id": "l2"},
]
TURNS = [
    Turn("user", ASK),
    Turn("assistant", calls=(LOCK, TIDE)),
    Turn("tool", "4.1", answers=LOCK),
    Turn("tool", "falling", answers=TIDE),
    Turn("assistant", "4.1 m."),
]


def write_items(
    items: list[Any], listed: list[dict[str, Any]] | None, answer: Any = "4.1 m."
) -> dict[str, Any]:
    body = {"model": "m", "instructions": "Be a pilot.", "input": items, "tools": SCHEMAS}
    system = {"role": "system", "content": "Be a pilot."}
    return write_llm([system, *listed] if listed else None, answer, body=body, tools=SCHEMAS)


def test_parallel_calls_of_one_turn_are_one_message() -> None:
    system = Turn("system", "Be a pilot.")
    assert read_turns(write_items(ITEMS, LISTED)) == [system, *TURNS]
    assert read_turns(write_items(ITEMS, None)) == [system, *TURNS]
    assert read_turns(write_llm(LISTED, "4.1 m.")) == TURNS


def test_calls_one_after_the_other_are_two_turns() -> None:
    items = [ITEMS[0], ITEMS[1], ITEMS[3], ITEMS[2], ITEMS[4]]
    listed = [LISTED[0], LISTED[1], LISTED[3], LISTED[2], LISTED[4]]
    assert read_turns(write_items(items, listed))[1:] == [
        Turn("user", ASK),
        Turn("assistant", calls=(LOCK,)),
        Turn("tool", "4.1", answers=LOCK),
        Turn("assistant", calls=(TIDE,)),
        Turn("tool", "falling", answers=TIDE),
        Turn("assistant", "4.1 m."),
    ]


def test_words_and_calls_of_one_turn_are_one_message() -> None:
    items = [ASKED, item_message("I look."), *ITEMS[1:]]
    listed = [ASKED, {"role": "assistant", "contents": [write_text("I look.")]}, *LISTED[1:]]
    assert read_turns(write_items(items, listed))[2] == Turn("assistant", "I look.", (LOCK, TIDE))


def test_thoughts_between_calls_do_not_part_a_turn() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": THOUGHT}]}
    items = [ASKED, thought, ITEMS[1], thought, *ITEMS[2:]]
    assert read_turns(write_items(items, None))[1:] == TURNS


def test_items_of_an_answer_are_one_answer() -> None:
    answer = [
        {"role": "assistant", "contents": [{"type": "reasoning", "text": THOUGHT}]},
        {"role": "assistant", "contents": [write_text("I look.")]},
        LISTED[1],
        LISTED[2],
    ]
    call = read(write_items([ASKED], [ASKED], answer))
    assert call.response.content == "I look."
    assert [made.name for made in call.response.tool_calls] == ["read_lock", "read_tide"]
    assert call.response.reasoning == THOUGHT


def test_items_of_an_answer_in_the_body_alone_are_one_answer() -> None:
    output = {"object": "response", "status": "completed", "output": [item_message("I look."), *ITEMS[1:3]]}
    attributes = write_items([ASKED], None, None) | write_llm(None, None, output=output)
    assert read_turns(attributes)[-1] == Turn("assistant", "I look.", (LOCK, TIDE))
