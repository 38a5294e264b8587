"""What the gateway makes of streams and of strangers' JSON, without a server."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.gateway.attributes import describe_answer, describe_request
from daemon.gateway.sse import EventCutter, assemble, build_event, parse_chunk

WORDS = (
    "messages tools prompt role content tool_calls function name arguments id type text image_url url "
    "index choices message delta finish_reason usage prompt_tokens total_tokens model user"
)
KEYS = st.sampled_from(WORDS.split())
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)
OBJECTS = st.dictionaries(KEYS, ANYTHING, max_size=6)
on_a_busy_machine = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@on_a_busy_machine
@given(OBJECTS)
def test_any_json_object_can_be_described(stranger: dict[str, Any]) -> None:
    for attributes in (describe_request(stranger), describe_answer(stranger)):
        for value in attributes.values():
            assert isinstance(value, str | int)
            assert not isinstance(value, str) or isinstance(value.encode(), bytes)


@on_a_busy_machine
@given(st.lists(OBJECTS, max_size=5))
def test_any_json_objects_can_be_put_together(chunks: list[dict[str, Any]]) -> None:
    json.dumps(assemble(chunks))


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
    assert parse_chunk(b": keep-alive") is None
    assert parse_chunk(b"data: [DONE]") is None
    assert parse_chunk(b"data: [1, 2]") is None
    assert parse_chunk(build_event({"a": "\ud83d"})) == {"a": "\ud83d"}


def test_a_stream_is_put_together_choice_by_choice() -> None:
    call = {"index": 0, "id": "c1", "function": {"name": "transfer", "arguments": ""}}
    chunks = [
        {"id": "1", "choices": [{"index": 1, "delta": {"role": "assistant", "content": "two"}}]},
        {"id": "1", "choices": [{"index": 0, "delta": {"role": "assistant", "tool_calls": [call]}}]},
        {"id": "1", "choices": [{"index": 0, "delta": {"tool_calls": [{"function": {"arguments": "{}"}}]}}]},
        {"id": "1", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}], "usage": None},
        {"id": "1", "choices": [], "usage": {"total_tokens": 9}},
    ]
    answer = assemble(chunks)
    assert answer["usage"] == {"total_tokens": 9}
    first, second = answer["choices"]
    assert first["finish_reason"] == "tool_calls"
    assert first["message"]["tool_calls"] == [
        {"type": "function", "id": "c1", "function": {"name": "transfer", "arguments": "{}"}}
    ]
    assert second["message"] == {"role": "assistant", "content": "two"}
