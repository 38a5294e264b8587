"""The gateway's APIs over real sockets: who is let in, what is refused, and how streams and answers end.

The replica is a stand-in (tests/support/openai_stand_in.py) that answers with what a test gives it.
"""

import gzip
import json
import socket
from collections.abc import Callable
from typing import Any

import anthropic
import httpx
import openai
import pytest

from daemon.gateway.apis import APIS
from extractors.examples.types import Message
from extractors.span_parsing.drop_reasons import DropReason
from tests.support.api_carriers import CARRIERS, Said, call
from tests.support.conversations import read, refuse
from tests.support.gateway import RouteSource, TracedCall, gateway, route, traced_gateway
from tests.support.openai_stand_in import StandIn, serving

Json = dict[str, Any]
SAID = Said(
    (Message(role="system", content="You route."), Message(role="user", content="I was charged twice")),
    Message(role="assistant", content="One moment.", tool_calls=(call("call_1", "berth", place="Husum"),)),
    ("berth",),
)
PATHS = list(APIS)
NEW = ["responses", "messages"]
"""The APIs that are not chat completions."""


@pytest.fixture
def replica() -> StandIn:
    return StandIn()


def stream_events(replica: StandIn, events: list[Json]) -> None:
    """Let the replica stream these events, by their names."""
    replica.raw = [
        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
        if "type" in event
        else f"data: {json.dumps(event)}\n\n".encode()
        for event in events
    ]
    replica.raw_headers = {"content-type": "text/event-stream; charset=utf-8"}


def ask(replica: StandIn, name: str, **changes: Any) -> tuple[httpx.Response, TracedCall]:
    """Return the answer to a call, and the call as it is traced."""
    carrier = CARRIERS[name]
    with traced_gateway(replica) as (client, calls):
        answer = client.post(carrier.path, json={**carrier.ask(SAID), **changes})
    (traced,) = calls
    return answer, traced


# Who is let in, and what is refused


@pytest.mark.parametrize("path", PATHS)
def test_a_key_of_anthropics_form_is_a_token_too(replica: StandIn, path: str) -> None:
    body = {"model": "acme/routing", "messages": [], "input": "hi"}
    with serving(replica) as url, gateway(RouteSource(route(url)), tokens={"good": "acme"}) as client:

        def send(**headers: str) -> int:
            named = {key.replace("_", "-"): value for key, value in headers.items()}
            return client.post(path, json=body, headers=named).status_code

        assert send(x_api_key="good") == 200
        assert send(authorization="Bearer good", x_api_key="wrong") == 200
        assert send(authorization="Bearer wrong", x_api_key="good") == 401
        assert send(x_api_key="wrong") == send(x_api_key="") == send() == 401
    assert [headers for headers in replica.headers if "x-api-key" in headers or "good" in str(headers)] == []


def test_an_error_has_the_form_of_its_api(replica: StandIn) -> None:
    with serving(replica) as url, gateway(RouteSource(route(url)), tokens={"good": "acme"}) as client:
        for path in PATHS:
            stranger = client.post(path, json={})
            good = {"authorization": "Bearer good"}
            unknown = client.post(path, json={"model": "acme/none"}, headers=good)
            broken = client.post(path, content=b"{", headers=good)
            large = client.post(path, content=bytes(2**20 + 1), headers=good)
            answers = [stranger, unknown, broken, large]
            assert [answer.status_code for answer in answers] == [401, 404, 400, 413]
            for answer in answers:
                check_form(path, answer.json())
            if "messages" in path:
                assert [answer.json()["error"]["type"] for answer in answers] == [
                    "authentication_error",
                    "not_found_error",
                    "invalid_request_error",
                    "request_too_large",
                ]
    assert replica.seen == []


def check_form(path: str, body: Json) -> None:
    """Check that an error has the form of the API at `path`."""
    if path.startswith("/v1/messages"):
        assert body.keys() == {"type", "error"}
        assert body["type"] == "error"
        assert body["error"].keys() == {"type", "message"}
    else:
        assert body.keys() == {"error"}
        assert body["error"].keys() == {"message", "type", "param", "code"}


STORED = {
    "previous_response_id": ({"previous_response_id": "resp_1"}, "previous_response_id"),
    "conversation": ({"conversation": "conv_1"}, "conversation"),
    "prompt": ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    "background": ({"background": True}, "background"),
    "item_reference": (
        {"input": [{"role": "user", "content": "hi"}, {"type": "item_reference", "id": "msg_1"}]},
        "input[1]",
    ),
}


@pytest.mark.parametrize("case", STORED)
def test_what_only_a_stored_response_could_give_is_refused(replica: StandIn, case: str) -> None:
    changes, param = STORED[case]
    with traced_gateway(replica) as (client, calls):
        answer = client.post("/v1/responses", json={"model": "acme/routing", "input": "hi", **changes})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == (
        "invalid_request_error",
        "unsupported_parameter",
        param,
    )
    assert "send the whole conversation in `input`" in error["message"]
    assert (replica.seen, calls) == ([], [])


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "resp_1"), ("DELETE", "resp_1"), ("POST", "resp_1/cancel"), ("GET", "resp_1/input_items")],
)
def test_a_stored_response_is_no_ones(replica: StandIn, method: str, path: str) -> None:
    with serving(replica) as url, gateway(RouteSource(route(url)), tokens={"good": "acme"}) as client:
        answer = client.request(method, f"/v1/responses/{path}", headers={"authorization": "Bearer good"})
        assert client.request(method, f"/v1/responses/{path}").status_code == 401
    assert answer.status_code == 400
    assert "no response is stored" in answer.json()["error"]["message"]
    assert replica.paths == []


def test_a_replica_is_told_to_store_nothing(replica: StandIn) -> None:
    replica.answer_whole(CARRIERS["responses"].answer(SAID))
    for changes in ({}, {"store": True}, {"store": False}, {"previous_response_id": None}):
        answer, traced = ask(replica, "responses", **changes)
        assert answer.status_code == 200
        assert replica.seen[-1]["store"] is False
        sent = {**CARRIERS["responses"].ask(SAID), **changes}
        assert json.loads(str(traced.attributes["input.value"])) == sent


@pytest.mark.parametrize("path", PATHS)
def test_a_request_may_be_compressed_and_wait_for_leave_to_send(replica: StandIn, path: str) -> None:
    body = gzip.compress(json.dumps({"model": "acme/routing", "messages": [], "input": "hi"}).encode())
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"content-encoding: gzip\r\ncontent-length: {len(body)}\r\nexpect: 100-continue\r\n"
        "connection: close\r\n\r\n"
    )
    with serving(replica) as url, gateway(RouteSource(route(url))) as client:
        port = client.base_url.port
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(head.encode())
            assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
            connection.sendall(body)
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert replica.seen[-1]["model"] == "base"


def test_leave_to_send_is_not_given_to_a_stranger(replica: StandIn) -> None:
    head = (
        "POST /v1/responses HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 10\r\nexpect: 100-continue\r\n\r\n"
    )
    with (
        serving(replica) as url,
        gateway(RouteSource(route(url)), tokens={"good": "acme"}) as client,
        socket.create_connection(("127.0.0.1", client.base_url.port), timeout=10) as connection,
    ):
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 401 ")


# How answers end


@pytest.mark.parametrize("name", CARRIERS)
def test_a_stream_without_its_last_event_is_an_error(replica: StandIn, name: str) -> None:
    events = CARRIERS[name].stream(SAID, 3)
    kept = len(events) - (2 if name == "chat" else 1)
    stream_events(replica, events[:kept])
    _, traced = ask(replica, name, stream=True)
    assert traced.error is not None
    assert traced.error.startswith("the stream ended before the model's answer did")
    # What came of it is still shown.
    assert traced.attributes["llm.output_messages.0.message.content"] == SAID.answer.content
    calls = traced.find("llm.output_messages.0.message.tool_calls.0.tool_call")
    assert calls["function.arguments"] == SAID.answer.tool_calls[0].arguments


@pytest.mark.parametrize("name", CARRIERS)
@pytest.mark.parametrize("kept", [0, 1, 2, 4, 8])
def test_a_stream_that_is_cut_anywhere_is_an_error(replica: StandIn, name: str, kept: int) -> None:
    stream_events(replica, CARRIERS[name].stream(SAID, 3)[:kept])
    _, traced = ask(replica, name, stream=True)
    assert traced.error is not None


def test_a_message_without_a_reason_has_not_ended(replica: StandIn) -> None:
    events = [event for event in CARRIERS["messages"].stream(SAID, 3) if event["type"] != "message_delta"]
    stream_events(replica, events)
    _, traced = ask(replica, "messages", stream=True)
    assert traced.error is not None
    replica.answer_whole({**CARRIERS["messages"].answer(SAID), "stop_reason": None})
    _, traced = ask(replica, "messages")
    assert traced.error == "the model's answer does not say that it ended"


@pytest.mark.parametrize("status", ["in_progress", "queued", "cancelled", None])
def test_a_response_without_an_end_has_not_ended(replica: StandIn, status: str | None) -> None:
    replica.answer_whole({**CARRIERS["responses"].answer(SAID), "status": status})
    _, traced = ask(replica, "responses")
    assert traced.error == "the model's answer does not say that it ended"


def test_a_failed_response_is_an_error(replica: StandIn) -> None:
    failed = {
        **CARRIERS["responses"].answer(SAID),
        "status": "failed",
        "error": {"code": "server_error", "message": "out of memory"},
    }
    replica.answer_whole(failed)
    assert ask(replica, "responses")[1].error == "out of memory"
    stream_events(
        replica,
        [*CARRIERS["responses"].stream(SAID, 3)[:-1], {"type": "response.failed", "response": failed}],
    )
    answer, traced = ask(replica, "responses", stream=True)
    assert traced.error == "out of memory"
    assert '"acme/routing"' in answer.text.rpartition("data: ")[2]


@pytest.mark.parametrize("name", NEW)
def test_an_error_within_a_stream_is_an_error(replica: StandIn, name: str) -> None:
    error: Json = {"type": "error", "error": {"type": "internal_error", "message": "out of memory"}}
    stream_events(replica, [*CARRIERS[name].stream(SAID, 3)[:6], error])
    _, traced = ask(replica, name, stream=True)
    assert traced.error == "out of memory"
    stream_events(replica, [{"type": "error", "message": "out of memory", "code": "server_error"}])
    _, traced = ask(replica, name, stream=True)
    assert traced.error == "out of memory"


def test_pieces_that_contradict_the_last_event_are_an_error(replica: StandIn) -> None:
    events = CARRIERS["responses"].stream(SAID, 3)
    changed = [{**event, "delta": "Two"} if event.get("delta") == "One" else event for event in events]
    stream_events(replica, changed)
    _, traced = ask(replica, "responses", stream=True)
    assert traced.error == "the pieces of the model's stream and its last event say different things"
    # Some servers leave the output out of the last event.
    last = {**events[-1], "response": {**events[-1]["response"], "output": []}}
    stream_events(replica, [*events[:-1], last])
    _, traced = ask(replica, "responses", stream=True)
    assert traced.error is None
    assert read(traced.attributes).response == SAID.answer


@pytest.mark.parametrize("kept", ["text", "nothing"])
def test_pieces_that_contradict_their_item_are_an_error(replica: StandIn, kept: str) -> None:
    events = CARRIERS["responses"].stream(SAID, 3)
    last = {**events[-1], "response": {**events[-1]["response"], "output": []}}
    text = "Two" if kept == "text" else ""
    changed = [{**event, "delta": text} if event.get("delta") == "One" else event for event in events]
    stream_events(replica, [*changed[:-1], last])
    _, traced = ask(replica, "responses", stream=True)
    assert traced.error == "the pieces of the model's stream and its last event say different things"


def test_a_response_that_ended_and_tells_an_error_is_one(replica: StandIn) -> None:
    events = CARRIERS["responses"].stream(SAID, 3)
    last = {**events[-1], "response": {**events[-1]["response"], "error": {"message": "out of memory"}}}
    stream_events(replica, [*events[:-1], last])
    assert ask(replica, "responses", stream=True)[1].error == "out of memory"


def find_event(events: list[Json], kind: str) -> int:
    return next(place for place, event in enumerate(events) if event["type"] == kind)


def begin_again(events: list[Json]) -> list[Json]:
    return [*events[: find_event(events, "content_block_delta") + 1], *events]


def begin_block_again(events: list[Json]) -> list[Json]:
    delta = find_event(events, "content_block_delta")
    return [*events[: delta + 1], *events[find_event(events, "content_block_start") :]]


def add_after_the_end(events: list[Json]) -> list[Json]:
    return [*events, events[find_event(events, "content_block_delta")]]


def add_after_the_block(events: list[Json]) -> list[Json]:
    stop = find_event(events, "content_block_stop") + 1
    return [*events[:stop], events[find_event(events, "content_block_delta")], *events[stop:]]


def leave_out_the_start(events: list[Json]) -> list[Json]:
    return events[1:]


def leave_out_a_start_of_a_block(events: list[Json]) -> list[Json]:
    start = find_event(events, "content_block_start")
    return [*events[:start], *events[start + 1 :]]


def lose_a_block(events: list[Json]) -> list[Json]:
    return [event for event in events if event.get("index") != 0]


def write_places_as_text(events: list[Json]) -> list[Json]:
    return [{**event, "index": str(event["index"])} if "index" in event else event for event in events]


@pytest.mark.parametrize(
    "change",
    [
        begin_again,
        begin_block_again,
        add_after_the_end,
        add_after_the_block,
        leave_out_the_start,
        leave_out_a_start_of_a_block,
        lose_a_block,
        write_places_as_text,
    ],
)
def test_events_that_are_not_those_of_one_message_are_an_error(
    replica: StandIn, change: Callable[[list[Json]], list[Json]]
) -> None:
    stream_events(replica, change(CARRIERS["messages"].stream(SAID, 3)))
    _, traced = ask(replica, "messages", stream=True)
    assert traced.error == "the events of the model's stream are not in the order of one message"


@pytest.mark.parametrize("name", CARRIERS)
def test_a_stream_with_a_status_of_an_error_is_one(replica: StandIn, name: str) -> None:
    stream_events(replica, CARRIERS[name].stream(SAID, 3))
    replica.raw_status = 429
    answer, traced = ask(replica, name, stream=True)
    assert (answer.status_code, traced.error) == (429, "the model answered HTTP 429 with an error")


@pytest.mark.parametrize("name", CARRIERS)
def test_an_event_that_is_named_an_error_is_one(replica: StandIn, name: str) -> None:
    events = CARRIERS[name].stream(SAID, 3)
    pieces = [f"data: {json.dumps(event)}\n\n".encode() for event in events]
    replica.raw = [*pieces[:2], b'event: error\ndata: {"message": "overloaded"}\n\n', *pieces[2:]]
    replica.raw_headers = {"content-type": "text/event-stream"}
    assert ask(replica, name, stream=True)[1].error == "overloaded"


@pytest.mark.parametrize("content", ["One moment.", {"type": "text", "text": "One moment."}])
def test_an_answer_in_a_form_that_is_not_known_is_no_empty_one(replica: StandIn, content: Any) -> None:
    replica.answer_whole({**CARRIERS["messages"].answer(SAID), "content": content})
    assert "One moment." in ask(replica, "messages")[1].find("llm.output_messages.0").values()
    replica.answer_whole({**CARRIERS["responses"].answer(SAID), "output": content})
    assert "One moment." in ask(replica, "responses")[1].find("llm.output_messages.0").values()


def cut_at(reason: str) -> Json:
    """Return the end of a response that did not come to its own."""
    return {"status": "incomplete", "incomplete_details": {"reason": reason}}


ENDS: dict[str, tuple[str, Callable[[Json], Json], str, DropReason]] = {
    "response, limit": (
        "responses",
        lambda answer: {
            **answer,
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
        },
        "length",
        DropReason.CUT_OFF,
    ),
    "response, no reason": (
        "responses",
        lambda answer: {**answer, "status": "incomplete"},
        "incomplete",
        DropReason.CUT_OFF,
    ),
    "response, filter": (
        "responses",
        lambda answer: {**answer, **cut_at("content_filter")},
        "content_filter",
        DropReason.ABNORMAL_END,
    ),
    "message, limit": (
        "messages",
        lambda answer: {**answer, "stop_reason": "max_tokens"},
        "length",
        DropReason.CUT_OFF,
    ),
    "message, window": (
        "messages",
        lambda answer: {**answer, "stop_reason": "model_context_window_exceeded"},
        "model_context_window_exceeded",
        DropReason.CUT_OFF,
    ),
    "message, refusal": (
        "messages",
        lambda answer: {**answer, "stop_reason": "refusal"},
        "content_filter",
        DropReason.ABNORMAL_END,
    ),
    "message, pause": (
        "messages",
        lambda answer: {**answer, "stop_reason": "pause_turn"},
        "pause_turn",
        DropReason.ABNORMAL_END,
    ),
}


@pytest.mark.parametrize("case", ENDS)
def test_an_abnormal_end_is_told_and_refused(replica: StandIn, case: str) -> None:
    name, change, reason, refused = ENDS[case]
    replica.answer_whole(change(CARRIERS[name].answer(SAID)))
    _, traced = ask(replica, name)
    assert traced.error is None
    assert traced.attributes["llm.finish_reason"] == reason
    assert refuse(traced.attributes) is refused


def test_a_refusal_is_told_as_one(replica: StandIn) -> None:
    item = {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "I cannot."}]}
    replica.answer_whole({**CARRIERS["responses"].answer(SAID), "output": [item]})
    _, traced = ask(replica, "responses")
    assert traced.find("llm.output_messages.0.message.contents.0.message_content") == {
        "type": "refusal",
        "text": "I cannot.",
    }
    assert refuse(traced.attributes) is DropReason.ABNORMAL_END


# What chat completions have no form for


IMAGE_URL = "data:image/png;base64,aGk="
INEXPRESSIBLE: dict[str, tuple[str, Json, DropReason]] = {
    "response, image": (
        "responses",
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": IMAGE_URL}]}]},
        DropReason.NOT_TEXT,
    ),
    "response, file": (
        "responses",
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
        DropReason.NOT_TEXT,
    ),
    "response, search": (
        "responses",
        {"input": [{"type": "web_search_call", "id": "ws"}, {"role": "user", "content": "And?"}]},
        DropReason.SERVER_TOOL,
    ),
    "response, custom tool": (
        "responses",
        {
            "input": [
                {"role": "user", "content": "Run it."},
                {"type": "custom_tool_call", "call_id": "c", "name": "shell", "input": "ls"},
                {"type": "custom_tool_call_output", "call_id": "c", "output": "a"},
            ]
        },
        DropReason.BROKEN_ARGUMENTS,
    ),
    "response, shell": (
        "responses",
        {"input": [{"type": "local_shell_call", "id": "s"}, {"role": "user", "content": "And?"}]},
        DropReason.BROKEN_ARGUMENTS,
    ),
    "response, screen": (
        "responses",
        {"input": [{"type": "computer_call", "id": "c"}, {"role": "user", "content": "And?"}]},
        DropReason.NOT_TEXT,
    ),
    "response, compaction": (
        "responses",
        {"input": [{"type": "compaction", "encrypted_content": "x"}, {"role": "user", "content": "And?"}]},
        DropReason.HISTORY_ELSEWHERE,
    ),
    "response, truncation": ("responses", {"truncation": "auto"}, DropReason.RENDERED_OTHERWISE),
    "response, namespace": (
        "responses",
        {"tools": [{"type": "namespace", "name": "harbour", "tools": []}]},
        DropReason.RENDERED_OTHERWISE,
    ),
    "response, raw history": (
        "responses",
        {"previous_input_messages": [{"role": "user"}]},
        DropReason.RENDERED_OTHERWISE,
    ),
    "response, its own words": (
        "responses",
        {"input": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "He"}]},
        DropReason.PREFILLED,
    ),
    "message, image": (
        "messages",
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "Look"},
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "image/png", "data": "aGk="},
                        },
                    ],
                }
            ]
        },
        DropReason.NOT_TEXT,
    ),
    "message, document": (
        "messages",
        {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "text"}}]}]},
        DropReason.NOT_TEXT,
    ),
    "message, search": (
        "messages",
        {
            "messages": [
                {"role": "user", "content": "Who won?"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
                        {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
                        {"type": "text", "text": "The Ida."},
                    ],
                },
                {"role": "user", "content": "And?"},
            ]
        },
        DropReason.SERVER_TOOL,
    ),
    "message, its own words": (
        "messages",
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "He"}]},
        DropReason.PREFILLED,
    ),
    "message, a result too few": (
        "messages",
        {
            "messages": [
                {"role": "user", "content": "Hi"},
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "a", "name": "berth", "input": {}}],
                },
                {"role": "user", "content": "And?"},
            ]
        },
        DropReason.NOT_WHOLE,
    ),
}


@pytest.mark.parametrize("case", INEXPRESSIBLE)
def test_what_cannot_be_learned_is_refused_with_its_reason(replica: StandIn, case: str) -> None:
    name, changes, reason = INEXPRESSIBLE[case]
    replica.answer_whole(CARRIERS[name].answer(SAID))
    _, traced = ask(replica, name, **changes)
    assert traced.error is None
    assert refuse(traced.attributes) is reason
    # The attributes say so by themselves, too: nobody needs the body.
    listed = {key: value for key, value in traced.attributes.items() if key != "input.value"}
    assert reason in (DropReason.RENDERED_OTHERWISE, refuse(listed))


def test_an_image_keeps_its_address(replica: StandIn) -> None:
    for name, case in (("responses", "response, image"), ("messages", "message, image")):
        replica.answer_whole(CARRIERS[name].answer(SAID))
        _, traced = ask(replica, name, **INEXPRESSIBLE[case][1])
        shown = {key: value for key, value in traced.attributes.items() if key.endswith("image.image.url")}
        assert list(shown.values()) == [IMAGE_URL]


def test_an_answer_that_a_server_tool_gave_is_refused(replica: StandIn) -> None:
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    answer = CARRIERS["responses"].answer(SAID)
    replica.answer_whole({**answer, "output": [search, *answer["output"]]})
    assert refuse(ask(replica, "responses")[1].attributes) is DropReason.SERVER_TOOL
    message = CARRIERS["messages"].answer(SAID)
    used = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "ferry"}}
    replica.answer_whole({**message, "content": [used, *message["content"]]})
    assert refuse(ask(replica, "messages")[1].attributes) is DropReason.SERVER_TOOL
    events = CARRIERS["messages"].stream(SAID, 5)
    cited = {"type": "web_search_result_location", "url": "https://ferry.test"}
    delta = {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "citations_delta", "citation": cited},
    }
    at = next(n for n, event in enumerate(events) if event["type"] == "content_block_stop")
    stream_events(replica, [*events[:at], delta, *events[at:]])
    assert refuse(ask(replica, "messages", stream=True)[1].attributes) is DropReason.SERVER_TOOL


def test_arguments_that_break_off_are_no_empty_ones(replica: StandIn) -> None:
    events = CARRIERS["messages"].stream(SAID, 5)
    last = max(n for n, event in enumerate(events) if event.get("delta", {}).get("partial_json"))
    stream_events(replica, [*events[:last], *events[last + 1 :]])
    _, traced = ask(replica, "messages", stream=True)
    assert refuse(traced.attributes) is DropReason.BROKEN_ARGUMENTS


def test_blocks_of_a_system_prompt_are_told_as_the_model_gets_them(replica: StandIn) -> None:
    replica.answer_whole(CARRIERS["messages"].answer(SAID))
    system = [{"type": "text", "text": "You route."}, {"type": "text", "text": " Be brief."}]
    _, traced = ask(replica, "messages", system=system)
    assert read(traced.attributes).prompt[0].content == "You route. Be brief."


def test_a_header_of_claude_codes_is_no_system_prompt(replica: StandIn) -> None:
    replica.answer_whole(CARRIERS["messages"].answer(SAID))
    header = {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=1a2b3;"}
    _, traced = ask(replica, "messages", system=[header, {"type": "text", "text": "You route."}])
    assert read(traced.attributes).prompt == SAID.prompt
    assert json.loads(str(traced.attributes["input.value"]))["system"][0] == header


def test_the_user_of_a_call_is_told(replica: StandIn) -> None:
    replica.answer_whole(CARRIERS["messages"].answer(SAID))
    _, traced = ask(replica, "messages", metadata={"user_id": "ann"})
    assert traced.attributes["user.id"] == "ann"
    replica.answer_whole(CARRIERS["responses"].answer(SAID))
    _, traced = ask(replica, "responses", user="ann")
    assert traced.attributes["user.id"] == "ann"


# Streams that a replica breaks off, as SDKs see them


def break_off(replica: StandIn, name: str) -> None:
    """Let the replica announce more of a stream than it sends."""
    stream_events(replica, CARRIERS[name].stream(SAID, 3)[:6])
    replica.raw_headers["content-length"] = "100000"


@pytest.mark.parametrize("name", CARRIERS)
def test_a_stream_that_breaks_off_ends_with_an_error_of_the_api(replica: StandIn, name: str) -> None:
    break_off(replica, name)
    answer, traced = ask(replica, name, stream=True)
    assert traced.error is not None
    assert traced.error.startswith("the model broke off in the middle of its answer")
    lines = answer.text.strip().rpartition("\n\n")[2].splitlines()
    error = json.loads(lines[-1].removeprefix("data: "))
    if name == "chat":
        check_form("/v1/chat/completions", error)
    else:
        assert lines[0] == "event: error"
        assert error["type"] == "error"
    if name == "responses":
        assert (error["sequence_number"], error["code"], error["param"]) == (6, "server_error", None)
    assert "broke off" in error["error"]["message"]


def test_the_sdks_raise_when_a_stream_breaks_off(replica: StandIn) -> None:
    with serving(replica) as url, gateway(RouteSource(route(url))) as client:
        base = str(client.base_url)
        with openai.OpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0) as sdk:
            break_off(replica, "responses")
            with pytest.raises(openai.APIError, match="broke off"):
                list(sdk.responses.create(model="acme/routing", input="hi", stream=True))
        with anthropic.Anthropic(base_url=base, api_key="none", max_retries=0) as claude:
            break_off(replica, "messages")
            with pytest.raises(anthropic.APIStatusError, match="broke off"):
                list(
                    claude.messages.create(
                        model="acme/routing",
                        max_tokens=9,
                        messages=[{"role": "user", "content": "hi"}],
                        stream=True,
                    )
                )
