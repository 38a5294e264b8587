"""The gateway's values from streams and from strangers' JSON, without a server."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.gateway.apis import APIS, CHAT_COMPLETIONS, Api
from daemon.gateway.attributes import Attributes, describe_answer, describe_request
from daemon.gateway.sse import EventCutter, build_event, read_chunk

WORDS = (
    "messages tools prompt role content tool_calls function name arguments id type text image_url url "
    "index choices message delta finish_reason usage prompt_tokens total_tokens model user functions "
    "function_call reasoning_content reasoning refusal audio images thinking n "
    "input instructions output output_index content_index summary_index item part response status call_id "
    "summary incomplete_details reason system source input_schema tool_use_id content_block partial_json "
    "stop_reason metadata user_id citation"
)
TYPES = (
    "message function_call function_call_output custom_tool_call reasoning item_reference web_search_call "
    "input_text output_text input_image tool_use tool_result text_delta input_json_delta thinking_delta "
    "citations_delta signature_delta response.created response.completed response.output_item.added "
    "response.output_item.done response.output_text.delta response.function_call_arguments.delta "
    "response.reasoning_summary_text.delta message_start content_block_delta message_delta message_stop error"
)
KEYS = st.sampled_from(WORDS.split())
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from(TYPES.split())
)
EACH_API = st.sampled_from(list(APIS.values()))
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)
OBJECTS = st.dictionaries(KEYS, ANYTHING, max_size=6)


def ask(request: dict[str, Any], api: Api = CHAT_COMPLETIONS) -> Attributes:
    """Return the attributes of a request."""
    return describe_request(request, api.read_request(request))


def answer_with(answer: dict[str, Any], api: Api = CHAT_COMPLETIONS) -> Attributes:
    """Return the attributes of an answer."""
    return describe_answer(answer, api.read_answer(answer))


on_a_busy_machine = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@on_a_busy_machine
@given(OBJECTS, EACH_API)
def test_any_json_object_can_be_described(stranger: dict[str, Any], api: Api) -> None:
    for attributes in (ask(stranger, api), answer_with(stranger, api)):
        for value in attributes.values():
            assert isinstance(value, str | int)
            assert not isinstance(value, str) or isinstance(value.encode(), bytes)


@on_a_busy_machine
@given(st.lists(OBJECTS, max_size=5), EACH_API)
def test_any_json_objects_can_be_put_together(chunks: list[dict[str, Any]], api: Api) -> None:
    json.dumps(api.assemble(chunks))
    api.find_stream_fault(chunks)


@on_a_busy_machine
@given(st.lists(st.binary(max_size=20), max_size=8), st.sampled_from([b"\n\n", b"\r\n\r\n"]), st.data())
def test_events_do_not_depend_on_how_the_network_cut_them(
    contents: list[bytes], blank: bytes, data: st.DataObject
) -> None:
    events = [b"data: " + content.translate(None, b"\r\n") for content in contents]
    stream = b"".join(event + blank for event in events)
    places = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=10)))
    cutter, found = EventCutter(), []
    for start, end in zip([0, *places], [*places, len(stream)], strict=True):
        found += cutter.feed(stream[start:end])
    assert found + cutter.finish() == events


def test_an_event_without_json_is_nobodys_chunk() -> None:
    assert read_chunk(b": keep-alive") is None
    assert read_chunk(b"data: [DONE]") is None
    assert read_chunk(b"data: [1, 2]") is None
    assert read_chunk(build_event({"a": "\ud83d"})) == {"a": "\ud83d"}


def test_a_stream_is_put_together_choice_by_choice() -> None:
    call = {"index": 0, "id": "c1", "function": {"name": "transfer", "arguments": ""}}
    chunks = [
        {"id": "1", "choices": [{"index": 1, "delta": {"role": "assistant", "content": "two"}}]},
        {"id": "1", "choices": [{"index": 0, "delta": {"role": "assistant", "tool_calls": [call]}}]},
        {"id": "1", "choices": [{"index": 0, "delta": {"tool_calls": [{"function": {"arguments": "{}"}}]}}]},
        {"id": "1", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}], "usage": None},
        {"id": "1", "choices": [], "usage": {"total_tokens": 9}},
    ]
    answer = CHAT_COMPLETIONS.assemble(chunks)
    assert answer["usage"] == {"total_tokens": 9}
    first, second = answer["choices"]
    assert first["finish_reason"] == "tool_calls"
    assert first["message"]["tool_calls"] == [
        {"type": "function", "id": "c1", "function": {"name": "transfer", "arguments": "{}"}}
    ]
    assert second["message"] == {"role": "assistant", "content": "two"}


def describe_message(**message: Any) -> dict[str, Any]:
    """Return the attributes of one message of a request, without their prefix."""
    prefix = "llm.input_messages.0.message."
    described = ask({"messages": [message]})
    return {key.removeprefix(prefix): value for key, value in described.items() if key.startswith(prefix)}


PARTS: dict[str, tuple[Any, dict[str, str]]] = {
    "text": ({"type": "text", "text": "look"}, {"type": "text", "text": "look"}),
    "text alone": ("look", {"type": "text", "text": "look"}),
    "text without a type": ({"text": "look"}, {"type": "text", "text": "look"}),
    "image": (
        {"type": "image_url", "image_url": {"url": "data:,"}},
        {"type": "image", "image.image.url": "data:,"},
    ),
    "image without an address": ({"type": "image_url", "image_url": {}}, {"type": "image"}),
    "audio": ({"type": "input_audio", "input_audio": {"data": "UklG"}}, {"type": "input_audio"}),
    "video": ({"type": "video_url", "video_url": "data:,"}, {"type": "video_url"}),
    "file": ({"type": "file", "file": {"filename": "bill.pdf"}}, {"type": "file"}),
    "refusal": ({"type": "refusal", "refusal": "no"}, {"type": "refusal", "text": "no"}),
    "thoughts": ({"type": "thinking", "thinking": "hm"}, {"type": "reasoning", "text": "hm"}),
    "thoughts in parts": (
        {"type": "thinking", "thinking": [{"type": "text", "text": "h"}, {"type": "text", "text": "m"}]},
        {"type": "reasoning", "text": "hm"},
    ),
    "a new kind": ({"type": "hologram", "hologram": "x"}, {"type": "hologram"}),
    "no kind": ({"hologram": "x"}, {"type": "unknown"}),
    "two kinds": ({"text": "look", "image_url": "data:,"}, {"type": "unknown", "text": "look"}),
    "a number": (7, {"type": "unknown"}),
}


@pytest.mark.parametrize("kind", PARTS)
def test_each_part_of_a_message_keeps_its_kind(kind: str) -> None:
    part, told = PARTS[kind]
    for role in ("user", "tool"):
        described = describe_message(role=role, content=[part, {"type": "text", "text": "last"}])
        prefix = "contents.0.message_content."
        assert {
            key[len(prefix) :]: value for key, value in described.items() if key.startswith(prefix)
        } == told
        assert described["contents.1.message_content.text"] == "last"
        assert "content" not in described


def test_arguments_are_told_as_json_whatever_their_form() -> None:
    calls = [
        {"id": "1", "function": {"name": "a", "arguments": {"city": "Åre"}}},
        {"id": "2", "function": {"name": "b", "arguments": '{"city":"Oslo"}'}},
        {"id": "3", "function": {"name": "c", "arguments": None}},
        "no call",
    ]
    described = describe_message(role="assistant", content=None, tool_calls=calls)
    assert described == {
        "role": "assistant",
        "tool_calls.0.tool_call.id": "1",
        "tool_calls.0.tool_call.function.name": "a",
        "tool_calls.0.tool_call.function.arguments": '{"city": "Åre"}',
        "tool_calls.1.tool_call.id": "2",
        "tool_calls.1.tool_call.function.name": "b",
        "tool_calls.1.tool_call.function.arguments": '{"city":"Oslo"}',
        "tool_calls.2.tool_call.id": "3",
        "tool_calls.2.tool_call.function.name": "c",
        "tool_calls.3.tool_call.function.name": "",
    }
    legacy = describe_message(role="assistant", function_call={"name": "a", "arguments": {"city": "Oslo"}})
    assert legacy["function_call_arguments_json"] == '{"city": "Oslo"}'


def test_thoughts_in_the_history_stand_before_the_text() -> None:
    described = describe_message(role="assistant", content="A refund.", reasoning_content="two payments")
    assert described == {
        "role": "assistant",
        "contents.0.message_content.type": "reasoning",
        "contents.0.message_content.text": "two payments",
        "contents.1.message_content.type": "text",
        "contents.1.message_content.text": "A refund.",
    }


def test_a_message_that_is_none_still_has_its_entry() -> None:
    described = ask({"messages": ["no message", {}, {"role": 3, "content": "hi"}]})
    assert [described[f"llm.input_messages.{index}.message.role"] for index in range(3)] == ["", "", ""]
    assert described["llm.input_messages.2.message.content"] == "hi"


@on_a_busy_machine
@given(st.lists(ANYTHING, max_size=4))
def test_each_choice_has_its_entry(choices: list[Any]) -> None:
    described = answer_with({"choices": choices})
    entries = {
        tuple(key.split(".")[1:3])
        for key in described
        if key.startswith(("llm.output_messages.", "llm.choices."))
    }
    assert {index for _, index in entries} == {str(index) for index in range(len(choices))}
    assert len(entries) == len(choices)
