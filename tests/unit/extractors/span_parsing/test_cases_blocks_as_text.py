"""Blocks and objects written as text: unwrapped where they are JSON that is known, else refused."""

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

ASK = "Which rope is frayed?"
ANSWER = "The mainsheet."
SPOKEN = [Turn("user", ASK), Turn("assistant", ANSWER)]


def ask_indexed(content: Any) -> dict[str, Any]:
    text = content if isinstance(content, str) else json.dumps(content)
    return write_indexed([{"role": "user", "content": text}], ANSWER)


def test_a_list_of_parts_with_an_image_is_no_text() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://ropes.test/1.jpg"}}
    assert refuse(ask_indexed([write_text(ASK), image])) is DropReason.NOT_TEXT


@pytest.mark.parametrize(
    "blocks",
    [
        [write_text(ASK)],
        [{**write_text(ASK), "cache_control": {"type": "ephemeral"}}],
        [write_text("Which rope"), write_text("is frayed?")],
    ],
    ids=["plain", "cached", "two"],
)
def test_a_list_of_text_blocks_is_its_text(blocks: list[dict[str, Any]]) -> None:
    assert read_turns(ask_indexed(blocks)) == SPOKEN


def test_blocks_of_an_answer_are_its_text_and_its_calls() -> None:
    blocks = [
        write_text("I look."),
        {"type": "tool_use", "id": "r1", "name": "inspect", "input": {"rope": 3}},
    ]
    answer = {
        "role": "assistant",
        "content": json.dumps(blocks),
        "tool_calls": [{"id": "r1", "name": "inspect", "arguments": '{"rope": 3}'}],
    }
    turns = read_turns(write_indexed([{"role": "user", "content": ASK}], answer))
    assert turns[-1] == Turn("assistant", "I look.", (Call("inspect", {"rope": 3}),))


def test_blocks_in_text_parts_are_thoughts_and_calls_not_words() -> None:
    parts = [
        write_part('{"type": "thinking", "thinking": "Look first.", "signature": "s"}'),
        write_part("I look."),
        write_part('{"type": "tool_use", "id": "r1", "name": "inspect", "input": {"rope": 3}}'),
        {"type": "tool_call", "id": "r1", "name": "inspect", "arguments": {"rope": 3}},
    ]
    answer = {"role": "assistant", "parts": parts, "finish_reason": "tool_call"}
    turns = read_turns(write_genai([{"role": "user", "parts": [write_part(ASK)]}], answer))
    assert turns[-1] == Turn("assistant", "I look.", (Call("inspect", {"rope": 3}),))


REPRS = [
    "[{'type': 'text', 'text': 'Which rope is frayed?'}]",
    "[TextBlock(citations=None, text='Which rope is frayed?', type='text')]",
    "content='Which rope is frayed?' additional_kwargs={} response_metadata={}",
    "HumanMessage(content='Which rope is frayed?', additional_kwargs={}, response_metadata={})",
    "ChatMessage(role=<MessageRole.USER: 'user'>, blocks=[TextBlock(text='Which rope is frayed?')])",
    "[ChatMessage(role='user', content='Which rope is frayed?')]",
    "<openai.types.chat.ChatCompletionMessage object at 0x7f2a3c1d5e10>",
]


@pytest.mark.parametrize("text", REPRS)
def test_an_object_of_python_written_as_text_is_refused(text: str) -> None:
    assert refuse(ask_indexed(text)) is DropReason.SERIALISED
    assert refuse(write_llm([{"role": "user", "content": text}], ANSWER)) is DropReason.SERIALISED
    assert refuse(write_llm([{"role": "user", "content": ASK}], text)) is DropReason.SERIALISED


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2, 3]",
        '[{"rope": 3, "state": "frayed"}]',
        '{"rope": 3, "text": "frayed"}',
        "{rope} is a placeholder of our template",
        "[rope] [sail]",
        "print(Rope(3))",
        "What does <rope.Sheet object at the mast> mean?",
        '"frayed"',
        "null",
        "[]",
        "{}",
    ],
)
def test_what_people_and_models_write_in_brackets_is_text(text: str) -> None:
    listed = [{"role": "user", "content": text}]
    assert read_turns(write_llm(listed, ANSWER)) == [Turn("user", text), SPOKEN[1]]
    assert read_turns(ask_indexed(text)) == [Turn("user", text), SPOKEN[1]]
    genai = write_genai([{"role": "user", "parts": [write_part(text)]}], ANSWER)
    assert read_turns(genai) == [Turn("user", text), SPOKEN[1]]


@pytest.mark.parametrize("text", ['{"rope": 3}', "[1, 2]", '{"type": "rope", "name": "mainsheet"}'])
def test_an_answer_of_json_is_text(text: str) -> None:
    assert read_turns(write_llm([{"role": "user", "content": ASK}], text)) == [
        SPOKEN[0],
        Turn("assistant", text),
    ]
    message = {"role": "assistant", "content": text}
    output = {"choices": [{"index": 0, "finish_reason": "stop", "message": message}]}
    body = {"messages": [{"role": "user", "content": ASK}]}
    attributes = write_llm([{"role": "user", "content": ASK}], text, body=body, output=output)
    assert read_turns(attributes) == [SPOKEN[0], Turn("assistant", text)]


def test_a_tools_result_of_json_is_text() -> None:
    inspect = Call("inspect", {"rope": 3})
    listed = [
        {"role": "user", "content": ASK},
        {"role": "assistant", "tool_calls": [write_call("r1", "inspect", rope=3)]},
        {"role": "tool", "content": '[{"rope": 3, "state": "frayed"}]', "tool_call_id": "r1"},
    ]
    turns = read_turns(write_llm(listed, ANSWER))
    assert turns[2] == Turn("tool", '[{"rope": 3, "state": "frayed"}]', answers=inspect)


def test_a_listed_content_of_blocks_as_text_is_their_text_or_refused() -> None:
    listed = [{"role": "user", "content": json.dumps([write_text(ASK)])}]
    body = {"messages": [{"role": "user", "content": [write_text(ASK)]}]}
    assert read_turns(write_llm(listed, ANSWER, body=body)) == SPOKEN


def test_thoughts_whose_text_is_a_list_are_thoughts() -> None:
    thinking = {"type": "thinking", "thinking": [write_text("Look at the winch.")]}
    message = {"role": "assistant", "content": [thinking, write_text(ANSWER)]}
    output = {"choices": [{"index": 0, "finish_reason": "stop", "message": message}]}
    body = {"messages": [{"role": "user", "content": ASK}]}
    assert read_turns(write_llm(None, None, body=body, output=output)) == SPOKEN
