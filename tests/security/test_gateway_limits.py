"""Replicas that answer without measure, and agents that send what JSON does not have, over real sockets."""

import json
from typing import Any

import pytest

from daemon.gateway.limits import MAX_ANSWER_BYTES, MAX_DEPTH, MAX_EVENT_BYTES
from tests.support.gateway import ASK, RouteSource, TracedCall, gateway, route, traced_gateway
from tests.support.openai_stand_in import StandIn, serving

JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream"}
PIECE = b"a" * 2**16
CHUNK = b'data: {"choices": [{"index": 0, "delta": {"content": "Yes"}}]}\n\n'


def nest(depth: int) -> bytes:
    """Return lists in a list, `depth` levels with the object around them."""
    return b'{"x": ' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


def make_endless(headers: dict[str, str], *pieces: bytes) -> StandIn:
    """Return a replica that sends the last piece again, until four times what is allowed has been sent."""
    *first, last = pieces
    return StandIn(raw=[*first, *[last] * (4 * MAX_ANSWER_BYTES // len(last))], raw_headers=headers)


def ask_traced(replica: StandIn, **request: Any) -> tuple[int, str, TracedCall]:
    """Return the status and the text that the agent gets, and the call as it was traced."""
    with traced_gateway(replica) as (client, calls):
        answer = client.post("/v1/chat/completions", json={**ASK, **request})
    (call,) = calls
    return answer.status_code, answer.text, call


def read_last_error(stream: str) -> str:
    *_, last = (line.removeprefix("data: ") for line in stream.splitlines() if line.startswith("data: "))
    return json.loads(last)["error"]["message"]


def test_an_answer_that_is_too_large_is_an_error_and_is_not_read_to_its_end() -> None:
    replica = make_endless(JSON, b'{"x": "', PIECE)
    status, text, call = ask_traced(replica)
    assert status == 502
    assert json.loads(text)["error"]["message"] == call.error
    assert call.error == f"the model's answer is larger than {MAX_ANSWER_BYTES} bytes"
    assert replica.aborted == 1


def test_an_event_without_an_end_is_an_error_and_reaches_nobody() -> None:
    replica = make_endless(EVENTS, CHUNK, b"data: ", PIECE)
    status, text, call = ask_traced(replica, stream=True)
    assert status == 200
    assert text.startswith('data: {"choices"')
    assert PIECE.decode() not in text
    assert read_last_error(text) == call.error
    assert call.error == f"the model's answer has an event that is larger than {MAX_EVENT_BYTES} bytes"
    assert call.attributes["llm.output_messages.0.message.content"] == "Yes"
    assert replica.aborted == 1


def test_a_stream_without_an_end_is_cut_with_an_error() -> None:
    replica = make_endless(EVENTS, b": " + PIECE + b"\n\n")
    status, text, call = ask_traced(replica, stream=True)
    assert status == 200
    assert read_last_error(text) == call.error
    assert call.error == f"the model's answer is larger than {MAX_ANSWER_BYTES} bytes"
    assert replica.aborted == 1


UNFIT = {
    "deep": (nest(MAX_DEPTH + 1), f"is nested deeper than {MAX_DEPTH} levels"),
    "deeper than Python reads": (nest(100_000), f"is nested deeper than {MAX_DEPTH} levels"),
    "NaN": (b'{"x": NaN}', "contains a number that JSON cannot carry: NaN"),
    "infinity": (b'{"x": [-Infinity]}', "contains a number that JSON cannot carry: -Infinity"),
    "too large": (b'{"x": 1e400}', "contains a number that JSON cannot carry: 1e400"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_an_answer_that_cannot_be_passed_on_is_an_error(case: str) -> None:
    body, fault = UNFIT[case]
    status, text, call = ask_traced(StandIn(raw=[body], raw_headers=JSON))
    assert status == 502
    assert call.error == f"the model's answer {fault}"
    assert json.loads(text)["error"] == {
        "message": call.error,
        "type": "server_error",
        "param": None,
        "code": "unusable_answer",
    }


@pytest.mark.parametrize("case", UNFIT)
def test_an_event_that_cannot_be_passed_on_ends_the_stream_with_an_error(case: str) -> None:
    body, fault = UNFIT[case]
    replica = StandIn(raw=[CHUNK, b"data: " + body + b"\n\n", CHUNK], raw_headers=EVENTS, event_seconds=0.05)
    status, text, call = ask_traced(replica, stream=True)
    assert status == 200
    assert text.count("Yes") == 1
    assert body.decode() not in text
    assert read_last_error(text) == call.error
    assert call.error == f"the model's answer {fault}"


@pytest.mark.parametrize("case", UNFIT)
def test_a_request_that_cannot_be_passed_on_is_refused(case: str) -> None:
    extra, fault = UNFIT[case]
    body = b'{"model": "acme/routing", "messages": [], ' + extra[1:]
    replica = StandIn()
    with serving(replica) as url, gateway(RouteSource(route(url))) as client:
        answer = client.post("/v1/chat/completions", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == f"the body {fault}"
    assert replica.seen == []


def test_what_is_as_deep_as_allowed_passes_both_ways() -> None:
    deep = json.loads(nest(MAX_DEPTH))
    replica = StandIn(raw=[json.dumps({**deep, "model": "base"}).encode()], raw_headers=JSON)
    with serving(replica) as url, gateway(RouteSource(route(url))) as client:
        answer = client.post("/v1/chat/completions", json={**ASK, **deep})
    assert answer.json() == {**deep, "model": "acme/routing"}
    assert replica.seen[0]["x"] == deep["x"]


def test_brackets_in_text_are_not_nesting() -> None:
    asked = {**ASK, "messages": [{"role": "user", "content": "[" * 10_000}]}
    replica = StandIn()
    with serving(replica) as url, gateway(RouteSource(route(url))) as client:
        assert client.post("/v1/chat/completions", json=asked).status_code == 200
    assert replica.seen[0]["messages"] == asked["messages"]
