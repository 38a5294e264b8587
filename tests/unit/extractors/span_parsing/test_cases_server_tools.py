"""Tools: those that a provider runs itself are no calls of the agent; a call names a tool that is offered."""

import json
from typing import Any

import pytest

from extractors.span_parsing.calls import read_call
from extractors.span_parsing.drop_reasons import DropReason
from tests.support.conversations import Call, Turn, outline, read_turns, refuse
from tests.support.flat_attributes import (
    write_call,
    write_genai,
    write_indexed,
    write_llm,
    write_part,
    write_text,
)
from tests.support.otlp import decode

ASK = "Who won the regatta?"
ASKED = {"role": "user", "content": ASK}
ANSWER = "The crew of the Ida."
ALONE = [Turn("user", ASK), Turn("assistant", ANSWER)]


def assert_words_alone_or_refused(attributes: dict[str, Any]) -> None:
    """Check that the server's tool is left out of the answer, or refuses the span with its reason."""
    found = read_call(decode(attributes))
    assert found is DropReason.SERVER_TOOL or (not isinstance(found, DropReason) and outline(found) == ALONE)


@pytest.mark.parametrize(
    "kind",
    ["web_search_call", "file_search_call", "code_interpreter_call", "mcp_call", "image_generation_call"],
)
def test_an_item_of_the_servers_own_is_no_call(kind: str) -> None:
    body = {"model": "m", "input": ASK, "tools": [{"type": kind.removesuffix("_call")}]}
    answer = [
        {"role": "assistant", "tool_calls": [{"id": "ws_7", "function": {"name": kind}}]},
        {"role": "assistant", "contents": [write_text(ANSWER)]},
    ]
    assert_words_alone_or_refused(write_llm([{}, ASKED], answer, body=body))
    items = [
        {"type": kind, "id": "ws_7", "status": "completed"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": ANSWER}]},
    ]
    output = {"object": "response", "status": "completed", "output": items}
    assert_words_alone_or_refused(write_llm([{}, ASKED], answer, body=body, output=output))
    assert_words_alone_or_refused(write_llm(None, None, body=body, output=output))


SEARCH = {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "regatta"}}
FOUND = {
    "type": "web_search_tool_result",
    "tool_use_id": "srv_1",
    "content": [{"type": "web_search_result", "url": "https://regatta.test", "title": "Results"}],
}


def test_a_search_of_anthropics_own_is_no_call() -> None:
    body = {"messages": [ASKED], "tools": [{"type": "web_search_20250305", "name": "web_search"}]}
    output = {"role": "assistant", "content": [SEARCH, FOUND, write_text(ANSWER)], "stop_reason": "end_turn"}
    listed = {"role": "assistant", "contents": [None, None, write_text(ANSWER)]}
    assert_words_alone_or_refused(write_llm([ASKED], listed, body=body, output=output))
    assert_words_alone_or_refused(write_llm([ASKED], None, body=body, output=output))


def test_a_search_of_anthropics_own_in_the_history_is_no_call() -> None:
    said = {"role": "assistant", "content": [SEARCH, FOUND, write_text("I know now.")]}
    body = {"messages": [{"role": "user", "content": "Look it up."}, said, ASKED]}
    found = read_call(decode(write_llm(None, ANSWER, body=body)))
    if isinstance(found, DropReason):
        assert found is DropReason.SERVER_TOOL
    else:
        assert outline(found) == [Turn("user", "Look it up."), Turn("assistant", "I know now."), *ALONE]


def test_code_that_gemini_ran_is_no_call() -> None:
    parts = [
        {"executableCode": {"language": "PYTHON", "code": "print(3)"}},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "3"}},
        {"text": ANSWER},
    ]
    output = {"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}]}
    body = {"contents": [{"role": "user", "parts": [{"text": ASK}]}]}
    assert_words_alone_or_refused(write_llm([ASKED], ANSWER, body=body, output=output))


def test_a_server_tool_of_a_genai_message_is_no_call() -> None:
    parts = [
        {"type": "server_tool_call", "id": "s1", "name": "web_search", "server_tool_call": {"type": "x"}},
        {"type": "server_tool_call_response", "id": "s1", "server_tool_call_response": {"type": "x"}},
        write_part(ANSWER),
    ]
    messages = [{"role": "user", "parts": [write_part(ASK)]}]
    assert_words_alone_or_refused(write_genai(messages, {"role": "assistant", "parts": parts}))


RACES = {"type": "function", "function": {"name": "list_races", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    "attributes",
    [
        write_llm(
            [ASKED], {"role": "assistant", "tool_calls": [write_call("q1", "find_winner")]}, tools=[RACES]
        ),
        write_llm(
            [ASKED],
            {"role": "assistant", "tool_calls": [write_call("q1", "find_winner")]},
            body={"messages": [ASKED], "tools": [RACES]},
        ),
        write_genai(
            [{"role": "user", "parts": [write_part(ASK)]}],
            {
                "role": "assistant",
                "parts": [{"type": "tool_call", "id": "q1", "name": "find_winner", "arguments": {}}],
            },
            gen_ai__tool__definitions=json.dumps([{"type": "function", "name": "list_races"}]),
        ),
        write_indexed(
            [ASKED],
            {"role": "assistant", "tool_calls": [{"id": "q1", "name": "find_winner", "arguments": "{}"}]},
            llm__request__functions__0__name="list_races",
        ),
    ],
    ids=["listed", "body", "genai", "indexed"],
)
def test_a_call_of_a_tool_that_was_not_offered_refuses(attributes: dict[str, Any]) -> None:
    assert refuse(attributes) is DropReason.UNKNOWN_TOOL


def test_one_unknown_call_among_others_refuses() -> None:
    calls = [write_call("q1", "list_races"), write_call("q2", "find_winner")]
    answer = {"role": "assistant", "tool_calls": calls}
    assert refuse(write_llm([ASKED], answer, tools=[RACES])) is DropReason.UNKNOWN_TOOL


def test_a_call_is_read_where_no_tools_were_recorded() -> None:
    answer = {"role": "assistant", "tool_calls": [write_call("q1", "find_winner")]}
    assert read_turns(write_llm([ASKED], answer))[-1] == Turn("assistant", calls=(Call("find_winner"),))


def test_a_tool_of_a_server_that_anthropic_called_is_no_call() -> None:
    parts = [
        {"type": "mcp_tool_use", "id": "m1", "name": "find_winner", "server_name": "club", "input": {}},
        {"type": "mcp_tool_result", "tool_use_id": "m1", "is_error": False, "content": [write_text("Ida")]},
        write_text(ANSWER),
    ]
    output = {"role": "assistant", "content": parts, "stop_reason": "end_turn"}
    assert_words_alone_or_refused(write_llm([ASKED], ANSWER, body={"messages": [ASKED]}, output=output))


def test_a_request_for_leave_to_call_a_server_is_no_answer() -> None:
    item = {"type": "mcp_approval_request", "id": "m1", "name": "find_winner", "arguments": "{}"}
    output = {"object": "response", "status": "completed", "output": [item]}
    attributes = write_llm(None, None, body={"model": "m", "input": ASK}, output=output)
    assert refuse(attributes) in {DropReason.SERVER_TOOL, DropReason.NO_ANSWER}
