"""Polls of a real Phoenix into a real store: whatever agents and reviewers do there, the mirror follows."""

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from daemon.demo.phoenix import PhoenixServer, run_phoenix
from daemon.demo.servers import find_free_port
from extractors.phoenix.client import PhoenixClient
from extractors.phoenix.mirror import MirrorChange, MirrorSource, PollRules
from extractors.phoenix.poll import poll
from extractors.phoenix.project import ProjectNotFound
from extractors.phoenix.span_client import WrongCondition, build_condition
from extractors.phoenix.spans import Annotation, Span, SpanFilter
from registry.store.store import Store
from tests.support.phoenix import (
    GATE_SECONDS,
    NOON,
    SentSpan,
    annotate,
    chat_span,
    delete_annotations,
    delete_project,
    delete_span,
    delete_trace,
    is_empty,
    new_project,
    send_and_wait,
)

SOON = NOON + timedelta(hours=1)
LATER = NOON + timedelta(hours=2)
NEXT_YEAR = NOON + timedelta(days=365)


@dataclass
class Follower:
    """A target that follows one project: polls it, and keeps in its store what the polls found."""

    client: PhoenixClient
    store: Store
    project: str
    target: str = "acme/routing"

    def poll(
        self,
        at: datetime = SOON,
        which: SpanFilter | None = None,
        names: Collection[str] = ("approval", "correction"),
        **rules: Any,
    ) -> MirrorChange:
        """Poll and apply the change."""
        source = MirrorSource(
            project=self.project, spans=which or SpanFilter(), annotation_names=frozenset(names)
        )
        mirror = self.store.mirror(self.target)
        change = poll(self.client, mirror, source, now=at, rules=PollRules(**rules))
        self.store.apply_mirror(self.target, change, at)
        return change

    @property
    def spans(self) -> dict[str, Span]:
        return {span.span_id: span for span in self.store.read_mirror(self.target)[0]}

    @property
    def annotations(self) -> list[Annotation]:
        return self.store.read_mirror(self.target)[1]

    @property
    def labels(self) -> set[tuple[str, str, str | None]]:
        """Subject, reviewer and label of each annotation."""
        return {(a.subject_id, a.identifier, a.label) for a in self.annotations}


@pytest.fixture
def client(phoenix: PhoenixServer) -> Iterator[PhoenixClient]:
    with PhoenixClient(phoenix.url) as client:
        yield client


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path, NOON)
    yield store
    store.close()


@pytest.fixture
def follower(client: PhoenixClient, store: Store, project: str) -> Follower:
    return Follower(client, store, project)


def test_the_first_poll_takes_traces_with_feedback_and_nothing_else(
    phoenix: PhoenixServer, follower: Follower
) -> None:
    agent = SentSpan(name="agent", kind="CHAIN", attributes={"input.value": "hi", "session.id": "s1"})
    call = agent.child(
        kind="LLM",
        attributes={
            "input.value": "Wo ist mein Päckchen? 📦",
            "llm.token_count.total": 7,
            "tag.tags": ["a", "b"],
        },
    )
    unreviewed = chat_span()
    send_and_wait(phoenix.url, follower.project, agent, call, unreviewed)
    annotate(phoenix.url, call.span_id, "approved", identifier="ann", metadata={"why": "✓"}, score=0.5)

    change = follower.poll()

    assert change.new_span_count == 3
    assert change.complete
    assert set(follower.spans) == {agent.span_id, call.span_id}
    selected, light = follower.spans[call.span_id], follower.spans[agent.span_id]
    assert selected.selected
    assert selected.attributes == {
        "input": {"value": "Wo ist mein Päckchen? 📦"},
        "llm": {"token_count": {"total": 7}},
        "tag": {"tags": ["a", "b"]},
    }
    assert (selected.parent_id, selected.session_id, selected.kind) == (agent.span_id, "s1", "LLM")
    assert selected.started_at == NOON + timedelta(seconds=1)
    assert not light.selected
    assert light.attributes == {}
    (annotation,) = follower.annotations
    assert (annotation.label, annotation.score, annotation.identifier) == ("approved", 0.5, "ann")
    assert annotation.metadata == {"why": "✓"}
    assert annotation.updated_at.tzinfo == UTC


def test_messages_that_stand_in_events_are_read_with_the_span(
    phoenix: PhoenixServer, follower: Follower
) -> None:
    model = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}
    question = ("gen_ai.user.message", {"gen_ai.system": "acme", "content": "Where is my bill?"})
    answer = ("gen_ai.choice", {"index": 0, "message": '{"content": "billing"}'})
    told = SentSpan(kind=None, attributes=model, events=[question, ("first token", {"n": 1}), answer])
    silent = SentSpan(kind=None, attributes=model)
    doubled = chat_span(attributes=model, events=[question, answer])
    send_and_wait(phoenix.url, follower.project, told, silent, doubled)
    for call in (told, silent, doubled):
        annotate(phoenix.url, call.span_id)

    follower.poll()

    assert follower.spans[told.span_id].attributes["events"] == [
        {"name": question[0], "attributes": question[1]},
        {"name": answer[0], "attributes": answer[1]},
    ]
    assert "events" not in follower.spans[silent.span_id].attributes
    assert "events" not in follower.spans[doubled.span_id].attributes


def test_vercels_request_to_the_model_is_read_and_the_spans_around_it_are_not(
    phoenix: PhoenixServer, follower: Follower
) -> None:
    outer = SentSpan(kind=None, name="ai.streamText", attributes={"ai.prompt": '{"prompt": "hi"}'})
    messages = '[{"role": "user", "content": [{"type": "text", "text": "hi"}]}]'
    said = {"ai.prompt.messages": messages, "ai.response.text": "ho", "ai.response.finishReason": "stop"}
    request = outer.child(kind=None, name="ai.streamText.doStream", attributes=said)
    derived = outer.child(kind=None, attributes={**said, "gen_ai.request.model": "m"})
    tool = outer.child(kind=None, name="ai.toolCall", attributes={"ai.toolCall.name": "find"})
    send_and_wait(phoenix.url, follower.project, outer, request, derived, tool)
    annotate(phoenix.url, outer.span_id)

    follower.poll()

    selected = {span_id: span for span_id, span in follower.spans.items() if span.selected}
    assert set(selected) == {request.span_id, derived.span_id}
    assert selected[request.span_id].attributes == {
        "ai": {"prompt": {"messages": messages}, "response": {"text": "ho", "finishReason": "stop"}}
    }
    assert follower.client.spans.count(
        follower.client.project(follower.project), build_condition(SpanFilter())
    ) == len(selected)


def test_a_poll_with_nothing_new_changes_nothing(phoenix: PhoenixServer, follower: Follower) -> None:
    call = chat_span()
    send_and_wait(phoenix.url, follower.project, call)
    annotate(phoenix.url, call.span_id)
    first = follower.poll()

    again = follower.poll(LATER, full_sweep_after=timedelta(days=1))
    assert is_empty(again)
    assert again.state == first.state

    swept = follower.poll(LATER, full_sweep_after=timedelta(0))
    assert is_empty(swept)
    assert swept.state.swept_at == LATER


def test_an_edited_label_replaces_the_old_verdict_and_a_second_reviewer_stands_beside_it(
    phoenix: PhoenixServer, follower: Follower
) -> None:
    call = chat_span()
    send_and_wait(phoenix.url, follower.project, call)
    annotate(phoenix.url, call.span_id, "approved", identifier="ann")
    follower.poll()

    annotate(phoenix.url, call.span_id, "rejected", identifier="ann")
    annotate(phoenix.url, call.span_id, "approved", identifier="bob")
    change = follower.poll()

    assert change.spans == ()
    assert follower.labels == {(call.span_id, "ann", "rejected"), (call.span_id, "bob", "approved")}


def test_an_old_annotation_is_followed_when_its_label_or_its_text_is_edited(
    phoenix: PhoenixServer, follower: Follower
) -> None:
    calls = [chat_span(started_at=NOON - timedelta(days=40 * n)) for n in range(3)]
    send_and_wait(phoenix.url, follower.project, *calls)
    for call in calls:
        annotate(phoenix.url, call.span_id, None, name="correction", explanation="billing")
    follower.poll(NEXT_YEAR)

    annotate(phoenix.url, calls[2].span_id, None, name="correction", explanation="returns")
    (edited,) = follower.poll(NEXT_YEAR + timedelta(minutes=1)).annotations

    assert (edited.subject_id, edited.explanation) == (calls[2].span_id, "returns")


def test_edits_on_older_days_are_found_as_these_take_turns_though_nothing_more_is_written(
    phoenix: PhoenixServer, follower: Follower
) -> None:
    calls = [chat_span(started_at=NOON - timedelta(days=40 * n)) for n in range(3)]
    send_and_wait(phoenix.url, follower.project, *calls)
    for call in calls:
        annotate(phoenix.url, call.span_id, "approved")
    follower.poll(NEXT_YEAR, cold_reads=1)
    for call in calls:
        annotate(phoenix.url, call.span_id, "rejected")

    polls = [
        follower.poll(NEXT_YEAR + timedelta(minutes=n), full_sweep_after=timedelta(days=1), cold_reads=1)
        for n in range(1, 5)
    ]

    assert [len(change.annotations) for change in polls] == [1, 1, 1, 0]
    assert {label for _, _, label in follower.labels} == {"rejected"}
    # All days were read since the gate moved, so the last poll has swept nothing.
    assert polls[3].state == polls[2].state


def test_feedback_on_a_span_that_was_seen_long_ago_brings_its_trace_in(
    phoenix: PhoenixServer, follower: Follower
) -> None:
    agent = SentSpan(kind="AGENT")
    call = agent.child(kind="LLM")
    send_and_wait(phoenix.url, follower.project, agent, call)
    assert is_empty(follower.poll())

    annotate(phoenix.url, call.span_id)
    follower.poll(NEXT_YEAR)

    assert set(follower.spans) == {agent.span_id, call.span_id}
    assert len(follower.annotations) == 1


def test_a_late_span_joins_its_trace_and_other_new_spans_stay_out(
    phoenix: PhoenixServer, follower: Follower
) -> None:
    agent = SentSpan(kind="AGENT", attributes={"session.id": "s1"})
    send_and_wait(phoenix.url, follower.project, agent)
    annotate(phoenix.url, agent.span_id)
    follower.poll()

    late = chat_span(trace_id=agent.trace_id, parent_id=agent.span_id, started_at=NOON - timedelta(days=3))
    send_and_wait(phoenix.url, follower.project, late, chat_span())
    change = follower.poll()

    assert [span.span_id for span in change.spans] == [late.span_id]
    assert change.new_span_count == 2
    assert follower.spans[late.span_id].selected
    assert follower.spans[late.span_id].session_id == "s1"


def test_a_session_that_a_late_span_reveals_reaches_the_spans_already_there(
    phoenix: PhoenixServer, follower: Follower
) -> None:
    call = chat_span()
    send_and_wait(phoenix.url, follower.project, call)
    annotate(phoenix.url, call.span_id)
    follower.poll()
    assert follower.spans[call.span_id].session_id is None

    root = SentSpan(trace_id=call.trace_id, kind="AGENT", attributes={"session.id": "s7"})
    send_and_wait(phoenix.url, follower.project, root)
    follower.poll()

    assert follower.spans[call.span_id].session_id == "s7"


def test_feedback_on_a_trace_or_a_session_brings_all_its_spans_in(
    phoenix: PhoenixServer, follower: Follower
) -> None:
    session = f"session of {follower.project} & ümläute"
    in_session = {"session.id": session}
    first, second, other = chat_span(attributes=in_session), chat_span(attributes=in_session), chat_span()
    beside = chat_span(trace_id=other.trace_id)
    send_and_wait(phoenix.url, follower.project, first, second, other, beside)
    annotate(phoenix.url, session, "rejected", level="session")
    annotate(phoenix.url, other.trace_id, "approved", level="trace")
    follower.poll()
    assert set(follower.spans) == {first.span_id, second.span_id, other.span_id, beside.span_id}
    assert {(a.level, a.subject_id) for a in follower.annotations} == {
        ("session", session),
        ("trace", other.trace_id),
    }

    third = chat_span(attributes=in_session)
    send_and_wait(phoenix.url, follower.project, third)
    annotate(phoenix.url, session, "approved", level="session")
    follower.poll()
    assert third.span_id in follower.spans
    assert (session, "", "approved") in follower.labels

    delete_annotations(phoenix.url, follower.project, name="approval", level="session")
    follower.poll(LATER)
    assert set(follower.spans) == {other.span_id, beside.span_id}
    assert follower.labels == {(other.trace_id, "", "approved")}


def test_deletions_are_found_by_the_full_sweep(phoenix: PhoenixServer, follower: Follower) -> None:
    twice, part, whole = chat_span(), chat_span(), chat_span()
    gone = part.child(kind="TOOL")
    # The newest span stays: were it missing, that alone would start a full sweep.
    send_and_wait(phoenix.url, follower.project, whole, gone, twice)
    send_and_wait(phoenix.url, follower.project, part)
    for identifier in ("ann", "bob"):
        annotate(phoenix.url, twice.span_id, identifier=identifier)
    for call in (part, whole):
        annotate(phoenix.url, call.span_id, identifier="ann")
    follower.poll()

    delete_annotations(phoenix.url, follower.project, name="approval", identifier="bob")
    time.sleep(GATE_SECONDS)
    assert is_empty(follower.poll(SOON))
    # Phoenix's gate moves a moment after a trace was deleted, as it does not with annotations.
    delete_span(phoenix.url, gone.span_id)
    delete_trace(phoenix.url, whole.trace_id)
    follower.poll(LATER)

    assert set(follower.spans) == {twice.span_id, part.span_id}
    assert follower.labels == {(twice.span_id, "ann", "approved"), (part.span_id, "ann", "approved")}


def test_spans_that_arrive_after_the_newest_ones_were_deleted_are_not_missed(
    phoenix: PhoenixServer, follower: Follower
) -> None:
    kept = SentSpan(kind="AGENT")
    send_and_wait(phoenix.url, follower.project, kept)
    annotate(phoenix.url, kept.span_id)
    newest = [chat_span() for _ in range(3)]
    send_and_wait(phoenix.url, follower.project, *newest)
    follower.poll()

    # Phoenix gives the row ids of deleted spans to the next ones.
    for span in newest:
        delete_trace(phoenix.url, span.trace_id)
    late = kept.child(kind="LLM")
    send_and_wait(phoenix.url, follower.project, late)
    follower.poll()

    assert set(follower.spans) == {kept.span_id, late.span_id}


def test_two_projects_never_mix(
    phoenix: PhoenixServer, client: PhoenixClient, store: Store, follower: Follower
) -> None:
    other = Follower(client, store, new_project("other"), target="globex/routing")
    shared = {"session.id": "the same session"}
    mine, theirs = chat_span(attributes=shared), chat_span(attributes=shared)
    send_and_wait(phoenix.url, follower.project, mine)
    send_and_wait(phoenix.url, other.project, theirs)
    annotate(phoenix.url, mine.span_id, "approved")
    annotate(phoenix.url, theirs.span_id, "rejected")

    follower.poll()
    other.poll()

    assert (set(follower.spans), set(other.spans)) == ({mine.span_id}, {theirs.span_id})
    assert follower.labels == {(mine.span_id, "", "approved")}
    assert other.labels == {(theirs.span_id, "", "rejected")}


def test_only_spans_that_the_whole_filter_names_are_selected(
    phoenix: PhoenixServer, follower: Follower
) -> None:
    def call(model: str, metadata: str, name: str = "route") -> SentSpan:
        return chat_span(
            name=name, attributes={"llm.model_name": model, "metadata": metadata, "own.part": "x"}
        )

    wanted = call("m1", '{"agent": "router", "live": true}')
    others = [
        call("m2", '{"agent": "router", "live": true}'),
        call("m1", '{"agent": "writer", "live": true}'),
        call("m1", '{"agent": "router", "live": 1}'),
        call("m1", '{"agent": "router", "live": true}', name="embed"),
    ]
    send_and_wait(phoenix.url, follower.project, wanted, *others)
    for span in (wanted, *others):
        annotate(phoenix.url, span.span_id)

    which = SpanFilter(
        name="route",
        attributes={"metadata.agent": "router", "metadata.live": True, "own.part": "x"},
        condition="llm.model_name == 'm1' or llm.model_name == 'm3'",
    )
    follower.poll(which=which)

    assert [span.span_id for span in follower.spans.values() if span.selected] == [wanted.span_id]
    assert len(follower.spans) == 5


@pytest.mark.parametrize("condition", ["span_kind = 'LLM'", "name ==", "nonsense", "1) or (name == 'x'"])
def test_a_condition_that_phoenix_cannot_read_is_an_error_and_not_an_empty_result(
    phoenix: PhoenixServer, follower: Follower, condition: str
) -> None:
    send_and_wait(phoenix.url, follower.project, chat_span())
    with pytest.raises(WrongCondition, match="condition"):
        follower.poll(which=SpanFilter(condition=condition))


def test_an_unknown_project_is_an_error(follower: Follower) -> None:
    with pytest.raises(ProjectNotFound, match=follower.project):
        follower.poll()


def test_other_names_or_another_filter_start_the_mirror_anew(
    phoenix: PhoenixServer, follower: Follower
) -> None:
    call, tool = chat_span(), chat_span(kind="TOOL")
    send_and_wait(phoenix.url, follower.project, call, tool)
    annotate(phoenix.url, call.span_id, name="approval")
    annotate(phoenix.url, tool.span_id, name="rating")
    follower.poll()

    tools = SpanFilter(kind="TOOL")
    emptied = follower.poll(which=tools, names={"rating"})
    assert not emptied.complete
    assert (follower.spans, follower.annotations) == ({}, [])

    assert follower.poll(which=tools, names={"rating"}).complete
    assert set(follower.spans) == {tool.span_id}
    assert follower.spans[tool.span_id].selected


def test_a_long_back_fill_comes_in_several_polls_and_loses_what_arrives_meanwhile_to_none(
    phoenix: PhoenixServer, follower: Follower
) -> None:
    rules = {"most_spans": 100, "traces_a_call": 100}
    agents = [SentSpan(kind="AGENT", started_at=NOON + timedelta(minutes=n)) for n in range(250)]
    calls = [agent.child(kind="LLM") for agent in agents]
    send_and_wait(phoenix.url, follower.project, *agents, *calls)
    annotations = [
        Annotation(
            level="span",
            subject_id=call.span_id,
            name="approval",
            identifier="ann",
            annotator_kind="HUMAN",
            label="approved",
            updated_at=NOON,
        )
        for call in calls
    ]
    follower.client.annotations.write(annotations)

    assert not follower.poll(**rules).complete
    begun = set(follower.spans)
    assert 0 < len(begun) < 500
    late = next(agent for agent in agents if agent.span_id in begun).child(kind="TOOL")
    send_and_wait(phoenix.url, follower.project, late)
    assert any(follower.poll(**rules).complete for _ in range(5))

    assert set(follower.spans) == {span.span_id for span in (*agents, *calls, late)}
    assert len(follower.annotations) == 250


def test_a_project_that_was_deleted_and_made_again_is_mirrored_as_it_is(
    phoenix: PhoenixServer, follower: Follower
) -> None:
    before, after = chat_span(), chat_span()
    send_and_wait(phoenix.url, follower.project, before)
    annotate(phoenix.url, before.span_id)
    follower.poll()

    delete_project(phoenix.url, follower.project)
    send_and_wait(phoenix.url, follower.project, after)
    annotate(phoenix.url, after.span_id, "rejected")
    while not follower.poll().complete:
        pass

    assert set(follower.spans) == {after.span_id}
    assert follower.labels == {(after.span_id, "", "rejected")}


def test_a_restarted_phoenix_is_swept_whole(tmp_path: Path, store: Store) -> None:
    port, project = find_free_port(), new_project()
    deleted, edited = chat_span(), chat_span()
    with run_phoenix(tmp_path, port=port) as phoenix, PhoenixClient(phoenix.url) as client:
        send_and_wait(phoenix.url, project, deleted, edited)
        annotate(phoenix.url, deleted.span_id, identifier="ann")
        annotate(phoenix.url, edited.span_id, identifier="bob")
        Follower(client, store, project).poll()
        delete_annotations(phoenix.url, project, name="approval", identifier="ann")
        annotate(phoenix.url, edited.span_id, "rejected", identifier="bob")

    with run_phoenix(tmp_path, port=port) as phoenix, PhoenixClient(phoenix.url) as client:
        follower = Follower(client, store, project)
        follower.poll(full_sweep_after=timedelta(days=1))
        assert follower.labels == {(edited.span_id, "bob", "rejected")}
        assert set(follower.spans) == {edited.span_id}
        assert is_empty(follower.poll(full_sweep_after=timedelta(days=1)))
