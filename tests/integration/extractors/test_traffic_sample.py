"""A sample of a target's whole traffic, in a real Phoenix."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from daemon.demo.phoenix import PhoenixServer
from extractors.cleaning.redaction import Redaction
from extractors.examples.prompt_keys import compute_query_key
from extractors.phoenix.client import PhoenixClient
from extractors.phoenix.project import ProjectNotFound
from extractors.phoenix.span_client import WrongCondition
from extractors.phoenix.spans import SpanFilter
from extractors.traffic_sample import TrafficCall, TrafficQuery, sample_traffic
from tests.support.phoenix import NOON, SentSpan, chat_span, send_and_wait, send_spans, wait_for_ids

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def client(phoenix: PhoenixServer) -> Iterator[PhoenixClient]:
    with PhoenixClient(phoenix.url) as opened:
        yield opened


def sample(client: PhoenixClient, project: str, **options: Any) -> tuple[TrafficCall, ...]:
    given = {"spans": SpanFilter(), "start": NOON, "end": NOON + HOUR}
    given |= {name: options.pop(name) for name in options.keys() & TrafficQuery.model_fields.keys()}
    return sample_traffic(client, TrafficQuery(project=project, **given), **options)


def find_ids(calls: tuple[TrafficCall, ...]) -> set[str]:
    return {call.span_id for call in calls}


def test_all_calls_of_the_time_are_there_and_nothing_else(
    client: PhoenixClient, phoenix: PhoenixServer, project: str
) -> None:
    first = chat_span("Where is  MY parcel?", attributes={"learnd.version": "acme.a.v3", "session.id": "s1"})
    last = chat_span("and the refund?", started_at=NOON + HOUR)
    others = [
        chat_span(started_at=NOON - MINUTE),
        chat_span(started_at=NOON + HOUR + MINUTE),
        chat_span(kind="CHAIN"),
        chat_span(attributes={"learnd.internal": True}),
        chat_span(attributes={"learnd.tenant": "acme", "learnd.agent": "other"}),
        SentSpan(attributes={"llm.model_name": "no prompt"}),
        SentSpan(kind=None, name="GET /"),
    ]
    send_and_wait(phoenix.url, project, first, last, *others)
    found = {call.span_id: call for call in sample(client, project, target="acme/a")}
    assert set(found) == {first.span_id, last.span_id}
    call = found[first.span_id]
    assert (call.text, call.answered_by, call.session_id) == ("where is my parcel?", "acme.a.v3", "s1")
    assert call.trace_id == first.trace_id
    assert (found[last.span_id].answered_by, found[last.span_id].session_id) == (None, None)


def test_what_the_user_said_last_counts_of_a_conversation(
    client: PhoenixClient, phoenix: PhoenixServer, project: str
) -> None:
    said = [("system", "Be brief."), ("user", "hello"), ("assistant", "hi"), ("user", "my refund?")]
    said += [("assistant", "let me look"), ("tool", "{}")]
    messages = {
        f"llm.input_messages.{n}.message.{key}": value
        for n, (role, content) in enumerate(said)
        for key, value in (("role", role), ("content", content))
    }
    call = "llm.input_messages.4.message.tool_calls.0.tool_call"
    called = {f"{call}.id": "c1", f"{call}.function.name": "look", f"{call}.function.arguments": "{}"}
    called["llm.input_messages.5.message.tool_call_id"] = "c1"
    send_and_wait(phoenix.url, project, chat_span(attributes=messages | called))
    assert [call.text for call in sample(client, project)] == ["my refund?"]


def test_a_call_that_agent_and_gateway_traced_is_one_with_the_version_that_the_gateway_knows(
    client: PhoenixClient, phoenix: PhoenixServer, project: str
) -> None:
    outer = chat_span()
    between = outer.child(kind="CHAIN", name="POST /v1/chat/completions")
    inner = chat_span(
        trace_id=outer.trace_id, parent_id=between.span_id, attributes={"learnd.version": "acme.a.v3"}
    )
    send_and_wait(phoenix.url, project, outer, between, inner)
    assert [(call.span_id, call.answered_by) for call in sample(client, project)] == [
        (outer.span_id, "acme.a.v3")
    ]


def test_the_filter_of_the_target_counts(client: PhoenixClient, phoenix: PhoenixServer, project: str) -> None:
    def build_call(name: str, agent: str, model: str) -> SentSpan:
        return chat_span(
            name=name, attributes={"metadata": f'{{"agent": "{agent}"}}', "llm.model_name": model}
        )

    own = build_call("route", "router", "small")
    others = [
        build_call("x", "router", "small"),
        build_call("route", "x", "small"),
        build_call("route", "router", "x"),
    ]
    send_and_wait(phoenix.url, project, own, *others)
    wanted = SpanFilter(
        name="route",
        attributes={"metadata.agent": "router"},
        condition="attributes['llm']['model_name'] == 'small'",
    )
    assert find_ids(sample(client, project, spans=wanted)) == {own.span_id}
    with pytest.raises(WrongCondition):
        sample(client, project, spans=SpanFilter(condition="this is ( no condition"))
    with pytest.raises(ProjectNotFound):
        sample(client, f"{project}-nowhere")


def test_of_many_calls_a_sample_is_drawn_that_stays_the_same(
    client: PhoenixClient, phoenix: PhoenixServer, project: str
) -> None:
    sent = [chat_span(f"question {n}", started_at=NOON + n * MINUTE) for n in range(60)]
    send_spans(phoenix.url, project, sent)
    wait_for_ids(phoenix.url, project, [span.span_id for span in sent])
    assert find_ids(sample(client, project)) == {span.span_id for span in sent}
    some = sample(client, project, most=10)
    assert len(some) == 10
    assert sample(client, project, most=10) == some
    late = {span.span_id for span in sent[30:]}
    few = [find_ids(sample(client, project, most=most)) for most in range(1, 31)]
    assert all(one < more for one, more in pairwise(few))
    assert 5 <= len(few[-1] & late) <= 25, "of a batch the newest are not the ones that are left out"
    few = find_ids(sample(client, project, most_ids=20))
    assert 5 <= len(few) <= 40
    assert few < {span.span_id for span in sent}


def test_of_a_target_that_searches_the_queries_are_sampled(
    client: PhoenixClient, phoenix: PhoenixServer, project: str
) -> None:
    search = SentSpan(kind="RETRIEVER", attributes={"input.value": '{"query": "My  refund"}', **JSON})
    wrapped = SentSpan(
        kind="RETRIEVER", trace_id=search.trace_id, parent_id=search.span_id, attributes=search.attributes
    )
    nothing = SentSpan(kind="RETRIEVER", attributes={"input.value": ""})
    send_and_wait(phoenix.url, project, search, wrapped, nothing, chat_span())
    (found,) = sample(client, project, spans=SpanFilter(kind="RETRIEVER"))
    assert (found.text, found.prompt_key, found.answered_by) == (
        "my refund",
        compute_query_key("My  refund"),
        None,
    )


JSON = {"input.mime_type": "application/json"}


class Anonymous:
    """A redactor that knows one name."""

    def redact(self, text: str) -> tuple[str, Mapping[str, int]]:
        return text.replace("Ann", "<NAME>"), {"NAME": text.count("Ann")}


def test_personal_data_is_taken_out(client: PhoenixClient, phoenix: PhoenixServer, project: str) -> None:
    send_and_wait(phoenix.url, project, chat_span("I am Ann"))
    search = SentSpan(kind="RETRIEVER", attributes={"input.value": "Ann's refund"})
    send_and_wait(phoenix.url, project, search)
    for spans, text in ((SpanFilter(), "i am <name>"), (SpanFilter(kind="RETRIEVER"), "<name>'s refund")):
        (found,) = sample(client, project, spans=spans, redaction=Redaction(Anonymous()))
        assert found.text == text
        assert found.prompt_key != sample(client, project, spans=spans)[0].prompt_key
