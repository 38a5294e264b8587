"""Prompts that the span holds in part: the rest is on a server, in events, or was dropped by the tracer."""

import json
from typing import Any

import pytest

from extractors.span_parsing.drop_reasons import DropReason
from tests.support.conversations import Call, Turn, read_turns, refuse
from tests.support.flat_attributes import flatten, write_call, write_genai, write_llm, write_part

ASKED = {"role": "user", "content": "And in knots?"}
ANSWER = "Twelve."
SPOKEN = [Turn("user", "And in knots?"), Turn("assistant", "Twelve.")]


def write_responses(**further: Any) -> dict[str, Any]:
    body = {"model": "m", "input": "And in knots?", **further}
    parameters = {"llm.invocation_parameters": json.dumps({"model": "m", **further})}
    return write_llm([{}, ASKED], ANSWER, body=body) | parameters


@pytest.mark.parametrize(
    "further",
    [
        {"previous_response_id": "resp_22"},
        {"conversation": "conv_4"},
        {"conversation": {"id": "conv_4"}},
        {"prompt": {"id": "pmpt_9", "version": "2", "variables": {"boat": "Ida"}}},
    ],
    ids=["previous-response", "conversation", "conversation-object", "stored-prompt"],
)
def test_a_responses_request_that_points_elsewhere_is_refused(further: dict[str, Any]) -> None:
    assert refuse(write_responses(**further)) is DropReason.HISTORY_ELSEWHERE


@pytest.mark.parametrize("key", ["previous_response_id", "conversation"])
def test_an_invocation_parameter_alone_says_that_the_history_is_elsewhere(key: str) -> None:
    attributes = write_llm([ASKED], ANSWER) | {"llm.invocation_parameters": json.dumps({key: "id_3"})}
    assert refuse(attributes) is DropReason.HISTORY_ELSEWHERE


def test_pointers_that_are_null_point_nowhere() -> None:
    further = {"previous_response_id": None, "conversation": None, "prompt": None}
    assert read_turns(write_responses(**further)) == SPOKEN


def test_an_item_reference_points_elsewhere() -> None:
    body = {"model": "m", "input": [{"type": "item_reference", "id": "msg_8"}, ASKED]}
    assert refuse(write_llm([{}, {}, ASKED], ANSWER, body=body)) is DropReason.HISTORY_ELSEWHERE


def test_content_that_gemini_has_cached_is_elsewhere() -> None:
    contents = [{"role": "user", "parts": [{"text": "And in knots?"}]}]
    for config in ({"cachedContent": "cachedContents/7"}, {"config": {"cached_content": "cachedContents/7"}}):
        body = {"model": "g", "contents": contents, **config}
        assert refuse(write_llm([ASKED], ANSWER, body=body)) is DropReason.HISTORY_ELSEWHERE


def test_the_id_of_a_conversation_names_a_session_and_hides_nothing() -> None:
    messages = [{"role": "user", "parts": [write_part("And in knots?")]}]
    assert read_turns(write_genai(messages, ANSWER, gen_ai__conversation__id="conv_4")) == SPOKEN


def test_calls_that_a_callback_did_not_write_are_missed_by_their_result() -> None:
    listed = [
        {"role": "user", "content": "How fast are we?"},
        {"role": "assistant"},
        {"role": "tool", "content": "6.2 m/s"},
    ]
    attributes = write_llm(listed, ANSWER) | {"input.value": "6.2 m/s", "output.value": ANSWER}
    assert refuse(attributes) is DropReason.NOT_WHOLE


def test_messages_with_a_role_alone_are_not_whole() -> None:
    listed = [{"role": "user", "content": "How fast are we?"}, {"role": "assistant"}, {"role": "tool"}]
    attributes = write_llm(listed, ANSWER, body={"messages": ["ChatMessage(...)"]})
    assert refuse(attributes) is DropReason.NOT_WHOLE


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_an_empty_turn_in_the_history_is_not_whole(role: str) -> None:
    listed = [{"role": "user", "content": "Cast off."}, {"role": role}, ASKED]
    assert refuse(write_llm(listed, ANSWER)) is DropReason.NOT_WHOLE
    bodied = [{"content": "", **message} for message in listed]
    assert refuse(write_llm(listed, ANSWER, body={"messages": bodied})) is DropReason.NOT_WHOLE


def test_a_computers_screenshot_that_was_not_written_is_not_whole() -> None:
    call = {"id": "c7", "function": {"name": "computer_call"}}
    listed = [
        {"role": "user", "content": "Open the chart"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c7"},
    ]
    reasons = {DropReason.NOT_TEXT, DropReason.NOT_WHOLE, DropReason.TRUNCATED, DropReason.SERVER_TOOL}
    assert refuse(write_llm(listed, "Opened.", body={"model": "m", "input": []})) in reasons


def test_messages_before_an_attribute_limit_are_missed_in_indexed_attributes() -> None:
    """Phoenix closes the gap that the first messages left; the many attributes tell."""
    said = [{"role": "user" if n % 2 else "assistant", "content": f"word {n}"} for n in range(11, 74)]
    attributes = flatten("gen_ai.prompt", [{}] * 11 + said) | flatten(
        "gen_ai.completion", [{"role": "assistant", "content": "done"}]
    )
    assert len(attributes) == 128
    assert refuse(attributes) is DropReason.TRUNCATED


def test_messages_before_an_attribute_limit_are_missed_when_calls_fill_it() -> None:
    said: list[dict[str, Any]] = []
    for n in range(20):
        call = {"id": f"c{n}", "name": "log", "arguments": json.dumps({"n": n})}
        said += [
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "content": f"{n}", "tool_call_id": f"c{n}"},
        ]
    whole = {"gen_ai.system": "openai", "llm.request.type": "chat"}
    whole |= flatten("gen_ai.prompt", [{"role": "user", "content": "Log."}, *said])
    whole |= flatten("gen_ai.completion", [{"role": "assistant", "content": "done"}])
    assert len(whole) > 128
    kept = dict(list(whole.items())[-128:])
    assert refuse(kept) is DropReason.TRUNCATED


def test_a_long_conversation_whose_first_attributes_are_there_is_read() -> None:
    """An agent that raised its limit keeps them all."""
    said = [{"role": "assistant" if n % 2 else "user", "content": f"word {n}"} for n in range(75)]
    whole = {"gen_ai.system": "openai", "gen_ai.request.model": "m", "llm.request.type": "chat"}
    whole |= flatten("gen_ai.prompt", said)
    whole |= flatten("gen_ai.completion", [{"role": "assistant", "content": "done", "finish_reason": "stop"}])
    turns = read_turns(whole)
    assert len(turns) == 76
    assert turns[0] == Turn("user", "word 0")


def test_a_gap_between_listed_messages_refuses() -> None:
    listed = [{"role": "user", "content": "Cast off."}, {}, ASKED]
    reasons = {DropReason.TRUNCATED, DropReason.NOT_WHOLE}
    read_or = write_llm(listed, ANSWER)
    assert refuse({**read_or, "llm.input_messages.1.message.name": "Ida"}) in reasons


def test_a_greeting_of_the_assistant_may_begin() -> None:
    listed = [{"role": "assistant", "content": "Ahoy!"}, ASKED]
    assert read_turns(write_llm(listed, ANSWER)) == [Turn("assistant", "Ahoy!"), *SPOKEN]


def test_a_history_that_ends_with_a_call_is_not_whole() -> None:
    listed = [ASKED, {"role": "assistant", "tool_calls": [write_call("c1", "log_speed")]}]
    assert refuse(write_llm(listed, ANSWER)) in {DropReason.NOT_WHOLE, DropReason.PREFILLED}


def test_calls_before_the_last_question_are_whole_with_their_results() -> None:
    log = Call("log_speed")
    listed = [
        {"role": "user", "content": "How fast are we?"},
        {"role": "assistant", "tool_calls": [write_call("c1", "log_speed")]},
        {"role": "tool", "content": "6.2 m/s", "tool_call_id": "c1"},
        {"role": "assistant", "content": "6.2 metres a second."},
        ASKED,
    ]
    assert read_turns(write_llm(listed, ANSWER)) == [
        Turn("user", "How fast are we?"),
        Turn("assistant", calls=(log,)),
        Turn("tool", "6.2 m/s", answers=log),
        Turn("assistant", "6.2 metres a second."),
        *SPOKEN,
    ]
