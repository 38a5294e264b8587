"""A real vLLM's recorded answers over each API, as they pass the gateway and as they are traced."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest

from daemon.demo.phoenix import PhoenixServer
from daemon.gateway import Tracing
from extractors.examples.types import Message, SFTExample
from extractors.feedback.extract import extract
from extractors.feedback.rules import FeedbackRules
from extractors.phoenix.client import PhoenixClient
from extractors.phoenix.mirror import MirrorSource
from extractors.phoenix.poll import poll
from extractors.span_parsing.drop_reasons import DropReason
from registry.store.store import Store
from tests.support.conversations import read, refuse
from tests.support.gateway import RouteSource, TracedCall, gateway, route, traced_gateway
from tests.support.openai_stand_in import serving
from tests.support.phoenix import annotate, wait_for_spans
from tests.support.vllm_recordings import Recording, Replay, find_recording, read_recordings

CARRIED = [(api, stream) for api in ("chat", "responses", "messages") for stream in (False, True)]
CONVERSATIONS = ("ferry", "berth", "tides", "results")
GOOD = [each for each in read_recordings() if each.status == 200]


def name(recording: Recording) -> str:
    return f"{recording.name}-{recording.api}{'-streamed' if recording.stream else ''}"


def send(client: httpx.Client, recording: Recording) -> httpx.Response:
    return client.post(recording.path, json={**recording.request, "model": "acme/routing"})


@cache
def trace(conversation: str, api: str, stream: bool) -> TracedCall:
    """Return the recorded call as it is traced."""
    recording = find_recording(conversation, api, stream=stream)
    with traced_gateway(Replay(recording)) as (client, calls):  # type: ignore[arg-type]
        assert send(client, recording).status_code == 200
    (call,) = calls
    assert call.error is None
    return call


def rename(content: Any) -> Any:
    """Return what vLLM said with the alias for each model's name."""
    if not isinstance(content, dict):
        return content
    inner = {key: rename(value) for key, value in content.items() if key in ("response", "message")}
    return {**content, **inner, **({"model": "acme/routing"} if "model" in content else {})}


def read_events(body: str) -> Iterator[tuple[str | None, Any]]:
    """Yield the name and the data of each event."""
    for event in body.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in event.splitlines())
        data = fields["data"]
        yield fields.get("event"), data if data == "[DONE]" else json.loads(data)


@pytest.mark.parametrize("recording", GOOD, ids=name)
def test_an_answer_arrives_as_vllm_gave_it_under_the_alias(recording: Recording) -> None:
    replica = Replay(recording)
    with traced_gateway(replica) as (client, _):  # type: ignore[arg-type]
        answer = send(client, recording)
    assert answer.headers["content-type"] == recording.content_type
    if recording.stream:
        expected = [(event, rename(data)) for event, data in read_events(recording.body)]
        assert list(read_events(answer.text)) == expected
    else:
        assert answer.json() == rename(json.loads(recording.body))
    stored = {"store": False} if recording.api == "responses" else {}
    assert replica.seen == [{**recording.request, **stored}]


@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_a_conversation_becomes_the_same_example_whichever_api_carried_it(conversation: str) -> None:
    calls = [read(trace(conversation, api, stream).attributes) for api, stream in CARRIED]
    said = [[number_calls([*call.prompt, call.response]), call.tools] for call in calls]
    assert said == [said[0]] * len(CARRIED)


@pytest.mark.parametrize(("api", "stream"), CARRIED)
def test_an_answer_that_met_its_limit_is_told_as_one(api: str, stream: bool) -> None:
    call = trace("cut", api, stream)
    assert call.attributes["llm.finish_reason"] == "length"
    assert refuse(call.attributes) is DropReason.CUT_OFF


def test_token_counts_are_told_alike() -> None:
    for conversation in CONVERSATIONS:
        counts = [trace(conversation, api, stream).find("llm.token_count") for api, stream in CARRIED]
        assert counts == [counts[0]] * len(CARRIED)
        assert set(counts[0]) == {"prompt", "completion", "total"}


def test_tokens_are_counted_without_a_trace() -> None:
    recording = find_recording("count tokens", "messages")
    with traced_gateway(Replay(recording)) as (client, calls):  # type: ignore[arg-type]
        answer = send(client, recording)
    assert answer.json()["input_tokens"] == json.loads(recording.body)["input_tokens"]
    assert "x-learnd-span-id" not in answer.headers
    assert calls == []


@pytest.mark.parametrize("api", ["chat", "responses", "messages"])
def test_a_request_that_vllm_refuses_is_refused_in_the_form_of_the_api(api: str) -> None:
    recording = find_recording("bad request", api)
    with traced_gateway(Replay(recording)) as (client, calls):  # type: ignore[arg-type]
        answer = send(client, recording)
    assert answer.status_code == 400
    told = json.loads(recording.body)["error"]
    if api == "messages":
        # vLLM itself uses OpenAI's form here.
        error = {"type": "invalid_request_error", "message": told["message"]}
        assert answer.json() == {"type": "error", "error": error}
    else:
        assert answer.json()["error"] == told
    assert [call.error for call in calls] == [told["message"]]


@pytest.mark.parametrize("api", ["chat", "responses", "messages"])
def test_a_model_that_vllm_has_not_loaded_is_another_replicas(api: str) -> None:
    restarted, healthy = find_recording("unknown model", api), find_recording("ferry", api)
    with (
        serving(Replay(restarted)) as sick,
        serving(Replay(healthy)) as url,
        gateway(RouteSource(route(sick, url, version="acme.routing.v1"))) as client,
    ):
        assert {send(client, healthy).status_code for _ in range(4)} == {200}


@pytest.mark.parametrize("api", ["chat", "responses", "messages"])
def test_a_route_that_vllm_does_not_have_is_no_missing_model(api: str) -> None:
    recording = find_recording("ferry", api)
    no_route = find_recording("no route", "messages").model_copy(update={"path": recording.path})
    old, new = Replay(no_route), Replay(recording)
    with serving(old) as old_url, serving(new) as url:
        with gateway(RouteSource(route(old_url))) as client:
            answers = [send(client, recording) for _ in range(3)]
        with gateway(RouteSource(route(old_url, url))) as client:
            assert {send(client, recording).status_code for _ in range(4)} == {200}
    assert {answer.status_code for answer in answers} == {404}
    error = answers[0].json()["error"]
    assert error["message"] == f"the model server of acme/routing does not have {recording.path}"
    assert answers[0].json().get("type") == ("error" if api == "messages" else None)
    assert len(old.seen) >= 3, "a replica without a route is no broken one"


def test_one_conversation_is_one_example_in_a_real_phoenix(
    phoenix: PhoenixServer, project: str, tmp_path: Path
) -> None:
    recordings = [find_recording("results", api, stream=stream) for api, stream in CARRIED]
    recordings += [find_recording("tides", api, stream=stream) for api, stream in CARRIED]
    span_ids = [replay_into(phoenix.url, project, recording) for recording in recordings]
    wait_for_spans(phoenix.url, project, len(span_ids))
    for span_id in span_ids:
        annotate(phoenix.url, span_id)
    examples = read_examples(phoenix.url, project, tmp_path)
    results = [examples[span_id] for span_id in span_ids[: len(CARRIED)]]
    assert results[0].completion.content == "Husum has 2.1 m and Emden 3.0 m."
    assert [example.prompt for example in results] == [results[0].prompt] * len(CARRIED)
    assert len({example.id for example in results}) == 1
    # vLLM draws new ids for the calls of each answer.
    tides = [examples[span_id].completion for span_id in span_ids[len(CARRIED) :]]
    assert len(tides[0].tool_calls) == 2
    assert [number_calls([answer]) for answer in tides] == [number_calls([tides[0]])] * len(CARRIED)


def replay_into(phoenix: str, project: str, recording: Recording) -> str:
    """Send the recorded request through a gateway that traces into `project`; gives the span's id."""
    with serving(Replay(recording)) as url:
        store = RouteSource(route(url, project=project))
        with gateway(store, tracing=Tracing(phoenix)) as client:
            return str(send(client, recording).headers["x-learnd-span-id"])


def read_examples(phoenix: str, project: str, folder: Path) -> dict[str, SFTExample]:
    """Return the examples that learnd makes of approved calls, by the span that they were read from."""
    now = datetime.now(UTC)
    with Store.open(folder, now) as store, PhoenixClient(phoenix) as client:
        source = MirrorSource(project=project, annotation_names=frozenset({"approval", "correction"}))
        store.apply_mirror("acme/routing", poll(client, store.mirror("acme/routing"), source, now=now), now)
        extraction = extract(*store.read_mirror("acme/routing"), FeedbackRules())
    assert extraction.dropped == {}
    examples = [item.to_example() for item in extraction.items]
    return {example.source_span_ids[0]: example for example in examples}


def number_calls(messages: list[Message]) -> list[Message]:
    """Return the messages with numbers for the ids of their calls."""
    numbers: dict[str | None, str] = {}
    for message in messages:
        for call in message.tool_calls:
            numbers.setdefault(call.id, f"call {len(numbers)}")
    return [
        message.model_copy(
            update={
                "tool_calls": tuple(
                    call.model_copy(update={"id": numbers[call.id]}) for call in message.tool_calls
                ),
                "tool_call_id": message.tool_call_id and numbers[message.tool_call_id],
            }
        )
        for message in messages
    ]
