"""What the gateway writes into a real Phoenix, read back as extraction reads it."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from daemon.demo.phoenix import PhoenixServer
from daemon.gateway import Tracing
from tests.support.gateway import ASK, RouteSource, gateway, route
from tests.support.openai_stand_in import TOOL_CALL, StandIn, serving
from tests.support.phoenix import SentSpan, new_project, send_spans, wait_for_spans

TOOL = {"type": "function", "function": {"name": "transfer", "parameters": {"type": "object"}}}
Send = Callable[..., httpx.Response]


@pytest.fixture
def replica() -> StandIn:
    return StandIn(models={"base", "acme.routing.v1"})


@pytest.fixture
def send(phoenix: PhoenixServer, project: str, replica: StandIn) -> Iterator[Send]:
    """Sends a chat to a gateway that traces into `project`."""
    with serving(replica) as url:
        store = RouteSource(route(url, version="acme.routing.v1", project=project))
        with gateway(store, tracing=Tracing(phoenix.url)) as client:
            # By hand, because httpx cannot send the half surrogate pairs that JSON can spell.
            yield lambda headers=None, **request: client.post(
                "/v1/chat/completions", content=json.dumps({**ASK, **request}), headers=headers
            )


def test_a_call_arrives_whole_and_within_the_callers_trace(
    phoenix: PhoenixServer, project: str, send: Send, replica: StandIn
) -> None:
    caller = SentSpan(kind="AGENT", name="agent")
    send_spans(phoenix.url, project, [caller])
    headers = {"traceparent": f"00-{caller.trace_id}-{caller.span_id}-00", "x-learnd-session": "chat-7 🙂"}
    sent = {name: value.encode() for name, value in headers.items()}
    answer = send(headers=sent, tools=[TOOL], temperature=0.5, user="ann")
    wait_for_spans(phoenix.url, project, 2)
    span = next(span for span in _spans(phoenix.url, project) if span["name"] == "ChatCompletion")
    assert (span["context"]["trace_id"], span["parent_id"]) == (caller.trace_id, caller.span_id)
    assert span["context"]["span_id"] == answer.headers["x-learnd-span-id"]
    assert (span["span_kind"], span["status_code"]) == ("LLM", "OK")
    attributes = span["attributes"]
    expected = {
        "llm.model_name": "acme/routing",
        "llm.input_messages.0.message.role": "user",
        "llm.input_messages.0.message.content": ASK["messages"][0]["content"],
        "llm.output_messages.0.message.content": replica.answer,
        "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "transfer",
        "llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments": TOOL_CALL["function"][
            "arguments"
        ],
        "llm.token_count.prompt": 7,
        "llm.token_count.completion": 3,
        "llm.token_count.total": 10,
        "session.id": "chat-7 🙂",
        "user.id": "ann",
        "input.mime_type": "application/json",
        "output.mime_type": "application/json",
        "learnd.tenant": "acme",
        "learnd.agent": "routing",
        "learnd.version": "acme.routing.v1",
        "learnd.internal": False,
        "metadata.tenant": "acme",
        "metadata.agent": "routing",
        "metadata.version": "acme.routing.v1",
    }
    assert {key: attributes.get(key) for key in expected} == expected
    assert json.loads(attributes["llm.tools.0.tool.json_schema"]) == TOOL
    assert json.loads(attributes["llm.invocation_parameters"])["temperature"] == 0.5
    assert json.loads(attributes["input.value"])["model"] == "acme/routing"


def test_a_streamed_call_is_traced_like_one_in_one_piece(
    phoenix: PhoenixServer, project: str, send: Send
) -> None:
    for stream in (False, True):
        send(tools=[TOOL], stream=stream)
    wait_for_spans(phoenix.url, project, 2)
    whole, streamed = (span["attributes"] for span in _spans(phoenix.url, project))
    differing = {key for key in whole.keys() | streamed.keys() if whole.get(key) != streamed.get(key)}
    assert differing <= {"input.value", "output.value", "llm.invocation_parameters"}
    said, put_together = (json.loads(attributes["output.value"]) for attributes in (whole, streamed))
    assert put_together["choices"] == said["choices"]
    assert put_together["usage"] == said["usage"]


def test_failed_and_internal_calls_are_marked(
    phoenix: PhoenixServer, project: str, send: Send, replica: StandIn
) -> None:
    send(headers={"x-learnd-internal": "true"})
    replica.status = 400
    send()
    replica.status = 503
    send()
    wait_for_spans(phoenix.url, project, 3)
    internal, refused, unanswered = _spans(phoenix.url, project)
    assert internal["attributes"]["learnd.internal"] is True
    assert (refused["status_code"], refused["status_message"]) == ("ERROR", "this replica was told to fail")
    assert unanswered["status_code"] == "ERROR"
    assert "no replica" in unanswered["status_message"]


def test_long_and_odd_conversations_arrive_whole(phoenix: PhoenixServer, project: str, send: Send) -> None:
    long = [{"role": ("user", "assistant")[n % 2], "content": f"turn {n}"} for n in range(300)]
    odd = [
        {"role": "user", "content": "half a pair: \ud83d"},
        "no message",
        {"role": 3},
        {"role": "user", "content": None},
    ]
    parts = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": "x"}],
        }
    ]
    for messages in (long, odd, parts, "not a list"):
        assert send(messages=messages).status_code == 200
    wait_for_spans(phoenix.url, project, 4)
    for_long, for_odd, for_parts, _ = (span["attributes"] for span in _spans(phoenix.url, project))
    for number in (0, 150, 299):
        assert for_long[f"llm.input_messages.{number}.message.content"] == f"turn {number}"
    assert for_odd["llm.input_messages.0.message.content"] == "half a pair: ?"
    assert for_parts["llm.input_messages.0.message.contents.0.message_content.text"] == "look"


def test_two_targets_are_traced_into_their_own_projects(
    phoenix: PhoenixServer, project: str, replica: StandIn
) -> None:
    other = new_project()
    with serving(replica) as url:
        store = RouteSource(route(url, project=project), route(url, target="globex/sorting", project=other))
        with gateway(store, tracing=Tracing(phoenix.url)) as client:
            for target in ("acme/routing", "globex/sorting", "globex/sorting"):
                client.post("/v1/chat/completions", json={**ASK, "model": target})
    wait_for_spans(phoenix.url, project, 1)
    wait_for_spans(phoenix.url, other, 2)
    assert {span["attributes"]["learnd.tenant"] for span in _spans(phoenix.url, project)} == {"acme"}
    assert {span["attributes"]["learnd.tenant"] for span in _spans(phoenix.url, other)} == {"globex"}


def _spans(url: str, project: str) -> list[dict[str, Any]]:
    """The project's spans, oldest first."""
    page = httpx.get(f"{url}/v1/projects/{project}/spans", params={"limit": 100}, timeout=60)
    spans: list[dict[str, Any]] = page.raise_for_status().json()["data"]
    return sorted(spans, key=lambda span: span["start_time"])
