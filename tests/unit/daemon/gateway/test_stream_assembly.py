"""Streams put together as agents' SDKs and servers really write them."""

from typing import Any

import pytest

from daemon.gateway.apis import CHAT_COMPLETIONS
from daemon.gateway.sse import EventCutter, parse_events


def call(
    arguments: Any = "", name: str | None = None, index: int | None = None, call_id: str | None = None
) -> dict[str, Any]:
    """A delta of a tool call, with only what is given."""
    function = {"name": name, "arguments": arguments}
    place = {"index": index, "id": call_id}
    return {
        **{key: value for key, value in place.items() if value is not None},
        "function": {key: value for key, value in function.items() if value is not None},
    }


def put_together(*deltas: dict[str, Any]) -> dict[str, Any]:
    """Return the message of one choice."""
    answer = CHAT_COMPLETIONS.assemble([{"choices": [{"index": 0, "delta": delta}]} for delta in deltas])
    message: dict[str, Any] = answer["choices"][0]["message"]
    return message


def list_calls(*calls: dict[str, Any]) -> list[tuple[str | None, str, str]]:
    """Return id, name and arguments of the calls that come of these deltas, one delta a chunk."""
    message = put_together({"role": "assistant", "content": None}, *({"tool_calls": [one]} for one in calls))
    return [
        (made.get("id"), made["function"]["name"], made["function"]["arguments"])
        for made in message.get("tool_calls", [])
    ]


OSLO, ROME = '{"city": "Oslo"}', '{"city": "Rome"}'
TWO = [("a", "weather", OSLO), ("b", "weather", ROME)]
TWO_WITHOUT_IDS = [(None, "weather", OSLO), (None, "weather", ROME)]
STREAMS: dict[str, tuple[list[dict[str, Any]], list[tuple[str | None, str, str]]]] = {
    "as OpenAI streams": (
        [
            call("", "weather", 0, "a"),
            call('{"city": ', None, 0),
            call('"Oslo"}', None, 0),
            call("", "weather", 1, "b"),
            call(ROME, None, 1),
        ],
        TWO,
    ),
    "two calls in turns": (
        [
            call("", "weather", 0, "a"),
            call("", "weather", 1, "b"),
            call('{"city": ', None, 1),
            call('{"city": ', None, 0),
            call('"Rome"}', None, 1),
            call('"Oslo"}', None, 0),
        ],
        TWO,
    ),
    "index 0 for each call": ([call(OSLO, "weather", 0, "a"), call(ROME, "weather", 0, "b")], TWO),
    "index 0, an empty id in what follows": (
        [
            call("", "weather", 0, "a"),
            call(OSLO, None, 0, ""),
            call("", "weather", 0, "b"),
            call(ROME, None, 0, ""),
        ],
        TWO,
    ),
    "index 0, the id in each delta": (
        [
            call("", "weather", 0, "a"),
            call('{"city": ', None, 0, "a"),
            call('"Oslo"}', None, 0, "a"),
            call("", "weather", 0, "b"),
            call(ROME, None, 0, "b"),
        ],
        TWO,
    ),
    "index 0 and no id": ([call(OSLO, "weather", 0), call(ROME, "weather", 0)], TWO_WITHOUT_IDS),
    "no index": ([call(OSLO, "weather", call_id="a"), call(ROME, "weather", call_id="b")], TWO),
    "no index, in fragments": (
        [
            call("", "weather", call_id="a"),
            call('{"city": '),
            call('"Oslo"}'),
            call("", "weather", call_id="b"),
            call(ROME),
        ],
        TWO,
    ),
    "no index, the first without arguments": (
        [call("", "now", call_id="a"), call("", "weather", call_id="b"), call(ROME)],
        [("a", "now", ""), ("b", "weather", ROME)],
    ),
    "neither index nor id": ([call(OSLO, "weather"), call(ROME, "weather")], TWO_WITHOUT_IDS),
    "neither, another name in a delta of its own": (
        [call(OSLO, "weather"), call("", "now"), call("{}")],
        [(None, "weather", OSLO), (None, "now", "{}")],
    ),
    "neither, the same name in a delta of its own": (
        [call("", "weather"), call(OSLO), call("", "weather"), call(ROME)],
        TWO_WITHOUT_IDS,
    ),
    "indices after none": ([call(OSLO, "weather", call_id="a"), call(ROME, "weather", 1, "b")], TWO),
    "the name in each delta": (
        [
            call("", "weather", 0, "a"),
            call('{"city": ', "weather", 0, "a"),
            call('"Oslo"}', "weather", 0, "a"),
            call("", "weather", 0, "a"),
        ],
        TWO[:1],
    ),
    "the name in each delta, without id or index": (
        [
            call("", "weather"),
            call('{"city": ', "weather"),
            call('"Oslo"}', "weather"),
            call("", "weather"),
        ],
        TWO_WITHOUT_IDS[:1],
    ),
    "the name in fragments": ([call("", "wea", 0, "a"), call("", "ther", 0), call(OSLO, None, 0)], TWO[:1]),
    "another id in each delta": (
        [
            call("", "weather", 0, "a"),
            call('{"city": ', None, 0, "x"),
            call('"Oslo"}', None, 0, "y"),
            call("", None, 0, "z"),
            call(ROME, "weather", 1, "b"),
        ],
        TWO,
    ),
    "the id after the name": (
        [call("", "weather", 0), call("", "weather", 0, "a"), call(OSLO, None, 0)],
        TWO[:1],
    ),
    "one id for two indices": (
        [call(OSLO, "weather", 0, "a"), call(ROME, "weather", 1, "a")],
        [("a", "weather", OSLO), ("a", "weather", ROME)],
    ),
    "the whole call again at the end": (
        [
            call("", "weather", 0, "a"),
            call('{"city": ', None, 0),
            call('"Oslo"}', None, 0),
            call(OSLO, "weather", 0, "a"),
        ],
        TWO[:1],
    ),
    "blanks after the arguments": (
        [call(OSLO, "weather", 0, "a"), call("\n", None, 0)],
        [("a", "weather", f"{OSLO}\n")],
    ),
    "the arguments as an object": ([call({"city": "Oslo"}, "weather", 0, "a")], TWO[:1]),
    "an empty delta before the call": ([call("", None, 0), call(OSLO, "weather", 1, "a")], TWO[:1]),
    "an index of true": ([{**call(OSLO, "weather", call_id="a"), "index": True}], TWO[:1]),
    "arguments that are no JSON stay as they were said": (
        [call('{"city": "Oslo"}', "weather", 0, "a"), call("}", None, 0)],
        [("a", "weather", f"{OSLO}}}")],
    ),
    "arguments that belong to no call are no good call": (
        [call(OSLO, "weather", 0, "a"), call(ROME, None, 1)],
        [("a", "weather", OSLO), (None, "", ROME)],
    ),
    "other arguments for one call are no good call": (
        [call(OSLO, "weather", 0, "a"), call(ROME, "weather", 0, "a")],
        [("a", "weather", OSLO + ROME)],
    ),
}


@pytest.mark.parametrize("stream", STREAMS)
def test_each_way_to_stream_calls_gives_the_calls_that_were_made(stream: str) -> None:
    deltas, calls = STREAMS[stream]
    assert list_calls(*deltas) == calls


def test_calls_in_one_chunk_are_like_calls_in_several() -> None:
    both = [call(OSLO, "weather", call_id="a"), call(ROME, "weather", call_id="b")]
    made = put_together({"tool_calls": both})["tool_calls"]
    assert [one["function"]["arguments"] for one in made] == [OSLO, ROME]


def test_a_call_of_another_type_is_kept_as_one() -> None:
    (made,) = put_together({"tool_calls": [{"index": 0, "id": "a", "type": "custom"}]})["tool_calls"]
    assert made["type"] == "custom"


def test_a_legacy_call_is_kept_as_one() -> None:
    message = put_together(
        {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": ""}},
        {"function_call": {"name": "weather", "arguments": '{"city": '}},
        {"function_call": {"arguments": '"Oslo"}'}},
        {"function_call": None},
    )
    assert message == {
        "role": "assistant",
        "content": None,
        "function_call": {"name": "weather", "arguments": OSLO},
    }


def test_thoughts_keep_one_name_and_are_not_doubled() -> None:
    message = put_together(
        {"role": "assistant", "content": "", "reasoning_content": None},
        {"reasoning_content": "two ", "reasoning": "two "},
        {"reasoning": "payments"},
        {"reasoning_content": {"text": ", one order"}},
        {"content": "A refund."},
    )
    assert message == {
        "role": "assistant",
        "content": "A refund.",
        "reasoning_content": "two payments, one order",
    }


def test_content_in_parts_is_joined_part_by_part() -> None:
    thought = {"type": "text", "text": "two "}
    message = put_together(
        {"role": "assistant", "content": ""},
        {"content": [{"type": "thinking", "thinking": [thought]}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "payments"}]}]},
        {"content": "A "},
        {"content": [{"type": "text", "text": "refund."}]},
        {"content": {"type": "image_url", "image_url": {"url": "data:,"}}},
    )
    assert message["content"] == [
        {"type": "thinking", "thinking": [{"type": "text", "text": "two payments"}]},
        {"type": "text", "text": "A refund."},
        {"type": "image_url", "image_url": {"url": "data:,"}},
    ]


def test_a_refusal_is_joined_and_what_is_not_known_is_kept() -> None:
    message = put_together(
        {"role": "assistant", "refusal": "I ", "audio": {"id": "1"}, "images": [1]},
        {"role": "assistant", "refusal": "cannot.", "images": [2]},
    )
    assert message == {
        "role": "assistant",
        "content": None,
        "refusal": "I cannot.",
        "audio": {"id": "1"},
        "images": [1, 2],
    }


def test_a_message_in_place_of_a_delta_is_read() -> None:
    message = {"role": "assistant", "content": "A refund."}
    answer = CHAT_COMPLETIONS.assemble(
        [{"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}]
    )
    assert answer["choices"] == [{"index": 0, "finish_reason": "stop", "message": message}]


def test_choices_are_kept_apart_and_their_probabilities_left_out() -> None:
    answer = CHAT_COMPLETIONS.assemble(
        [
            {"choices": [{"index": 1, "delta": {"content": "b"}, "logprobs": {"content": []}}]},
            {"choices": [{"index": 0, "delta": {"content": "a"}}]},
            {
                "choices": [
                    {"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": 7, "token_ids": [1]}
                ]
            },
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "", "stop_reason": None}]},
            {"choices": [{"index": 1, "delta": {}, "finish_reason": "length"}]},
        ]
    )
    assert answer["choices"] == [
        {
            "index": 0,
            "finish_reason": "stop",
            "stop_reason": 7,
            "message": {"role": "assistant", "content": "a"},
        },
        {"index": 1, "finish_reason": "length", "message": {"role": "assistant", "content": "b"}},
    ]


def test_an_event_is_found_however_its_end_was_cut() -> None:
    cutter = EventCutter()
    stream = b"data: a\r\n\r\ndata: b\n\n"
    found = [event for each in stream for event in cutter.feed(bytes([each]))]
    assert found == [b"data: a", b"data: b"]


def test_only_data_that_are_neither_an_object_nor_the_end_are_damage() -> None:
    whole = [b": ping", b"data:", b"data: [DONE]", b'event: a\ndata: {"a": 1}']
    assert parse_events(whole) == ([{"a": 1}], False)
    for damaged in (b'data: {"a": ', b"data: [1]", b"data: ping"):
        assert parse_events([*whole, damaged]) == ([{"a": 1}], True)
