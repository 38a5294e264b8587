"""Polls of a target whose spans are searches: annotated documents and clicks, in a real Phoenix and store."""

import time
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from daemon.demo.phoenix import PhoenixServer
from extractors.feedback.extract import Extraction
from extractors.feedback.rules import FeedbackRules
from extractors.feedback.searches import RELEVANCE, extract_searches
from extractors.phoenix.client import PhoenixClient
from extractors.phoenix.mirror import MirrorChange, MirrorSource, PollRules
from extractors.phoenix.poll import poll
from extractors.phoenix.spans import Annotation, Span, SpanFilter
from extractors.span_parsing.drop_reasons import SearchDropReason
from registry.store.store import Store
from registry.targets import TargetState
from tests.support.phoenix import (
    GATE_SECONDS,
    NOON,
    SentSpan,
    annotate,
    chat_span,
    delete_span,
    is_empty,
    send_and_wait,
)

SOON = NOON + timedelta(hours=1)
NEXT_YEAR = NOON + timedelta(days=365)
TARGET = "acme/find"
CLICKED = "clicked_document_ids"


def search(*texts: str, query: str = "where is my refund?", **changes: Any) -> SentSpan:
    """A RETRIEVER span that found documents d0, d1, …"""
    attributes = {"input.value": query, **changes.pop("attributes", {})}
    for number, text in enumerate(texts or ("first", "second", "third")):
        prefix = f"retrieval.documents.{number}.document"
        attributes |= {f"{prefix}.id": f"d{number}", f"{prefix}.content": text, f"{prefix}.score": 0.5}
    return SentSpan(**{"kind": "RETRIEVER", "name": "retrieve", "attributes": attributes, **changes})


class Follower:
    """A target that follows the searches of one project."""

    def __init__(self, client: PhoenixClient, store: Store, project: str) -> None:
        self.client, self.store, self.project = client, store, project

    def poll(
        self,
        minutes: float = 0,
        *,
        at: datetime = SOON,
        which: SpanFilter | None = None,
        used_keys: Collection[str] = (CLICKED,),
        **rules: Any,
    ) -> MirrorChange:
        """Poll `minutes` after `at` and apply the change; the full sweep comes after 30 of them."""
        at += timedelta(minutes=minutes)
        source = MirrorSource(
            project=self.project,
            spans=which or SpanFilter(kind="RETRIEVER"),
            annotation_names=frozenset({"relevance"}),
            used_keys=frozenset(used_keys),
        )
        mirror = self.store.mirror(TARGET)
        change = poll(self.client, mirror, source, now=at, rules=PollRules(**rules))
        self.store.apply_mirror(TARGET, change, at)
        return change

    @property
    def spans(self) -> dict[str, Span]:
        return {span.span_id: span for span in self.store.read_mirror(TARGET)[0]}

    @property
    def labels(self) -> set[tuple[str, str | None]]:
        return {(each.subject_id, each.label) for each in self.annotations}

    @property
    def annotations(self) -> list[Annotation]:
        return self.store.read_mirror(TARGET)[1]

    @property
    def state(self) -> TargetState:
        return self.store.target_state(TARGET)

    @property
    def retrievals(self) -> Extraction:
        return extract_searches(*self.store.read_mirror(TARGET), FeedbackRules(annotations=(RELEVANCE,)))


@pytest.fixture
def follower(phoenix: PhoenixServer, tmp_path: Path, project: str) -> Iterator[Follower]:
    store = Store.open(tmp_path, NOON)
    with PhoenixClient(phoenix.url) as client:
        yield Follower(client, store, project)
    store.close()


def judge(phoenix: PhoenixServer, span: SentSpan, labels: Mapping[int, str], **changes: Any) -> None:
    """Annotate documents of a search, by position, and wait for it."""
    data = [
        {
            "span_id": span.span_id,
            "document_position": position,
            "name": "relevance",
            "annotator_kind": "HUMAN",
            "result": {"label": label},
            **changes,
        }
        for position, label in labels.items()
    ]
    url = f"{phoenix.url}/v1/document_annotations?sync=true"
    assert httpx.post(url, json={"data": data}, timeout=60).status_code == 200
    time.sleep(GATE_SECONDS)


def withdraw(phoenix: PhoenixServer, project: str, span: SentSpan) -> None:
    """Delete all annotations on documents of a search, as Phoenix's page does."""
    ask = "query($s:String!){getSpanByOtelId(spanId:$s){documentEvaluations{id}}}"
    found = _graphql(phoenix, ask, {"s": span.span_id})["getSpanByOtelId"]["documentEvaluations"]
    ids = [each["id"] for each in found]
    assert ids, f"nothing to delete in {project}"
    delete = "mutation($ids:[ID!]!){deleteDocumentAnnotations(input:{annotationIds:$ids}){__typename}}"
    _graphql(phoenix, delete, {"ids": ids})


def _graphql(phoenix: PhoenixServer, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    body = {"query": query, "variables": dict(variables)}
    answer = httpx.post(f"{phoenix.url}/graphql", json=body, timeout=60).raise_for_status().json()
    assert "errors" not in answer, answer
    found: dict[str, Any] = answer["data"]
    return found


def test_annotated_documents_bring_their_search_in_with_its_texts(
    phoenix: PhoenixServer, follower: Follower
) -> None:
    agent = SentSpan(kind="CHAIN", attributes={"session.id": "s1"})
    judged = search(trace_id=agent.trace_id, parent_id=agent.span_id)
    send_and_wait(phoenix.url, follower.project, agent, judged, search(), chat_span())
    judge(phoenix, judged, {0: "irrelevant", 2: "relevant"}, metadata={"why": "✓"})
    judge(phoenix, judged, {1: "relevant"}, name="another name")

    assert follower.poll().complete

    assert set(follower.spans) == {agent.span_id, judged.span_id}
    assert follower.labels == {(f"{judged.span_id}:0", "irrelevant"), (f"{judged.span_id}:2", "relevant")}
    first = follower.annotations[0]
    assert (first.level, first.annotator_kind, first.metadata) == ("document", "HUMAN", {"why": "✓"})
    (retrieval,) = follower.retrievals.retrievals
    assert [(d.id, d.text, d.relevant) for d in retrieval.documents] == [
        ("d0", "first", False),
        ("d1", "second", None),
        ("d2", "third", True),
    ]
    assert (retrieval.query, retrieval.session_id) == ("where is my refund?", "s1")
    assert follower.state.feedback_changes == 1
    assert is_empty(follower.poll(1))


def test_added_and_edited_annotations_are_found_at_once_and_deleted_ones_by_the_full_sweep(
    phoenix: PhoenixServer, follower: Follower
) -> None:
    one, other = search(), search("a", "b")
    send_and_wait(phoenix.url, follower.project, one, other)
    judge(phoenix, one, {0: "relevant"})
    follower.poll()

    judge(phoenix, one, {0: "irrelevant", 1: "relevant"})
    judge(phoenix, other, {1: "relevant"})
    follower.poll(1)
    assert follower.labels == {
        (f"{one.span_id}:0", "irrelevant"),
        (f"{one.span_id}:1", "relevant"),
        (f"{other.span_id}:1", "relevant"),
    }
    assert follower.state.feedback_changes == 3  # a search each time, not a document

    withdraw(phoenix, follower.project, one)
    assert is_empty(follower.poll(2))
    follower.poll(40)
    assert follower.labels == {(f"{other.span_id}:1", "relevant")}
    assert set(follower.spans) == {other.span_id}

    delete_span(phoenix.url, other.span_id)
    follower.poll(80)
    assert (follower.labels, follower.spans) == (set(), {})


def test_old_searches_are_read_as_their_days_take_turns_and_the_newest_each_time(
    phoenix: PhoenixServer, follower: Follower
) -> None:
    few = {"newest_searches": 1, "cold_reads": 1}
    old = [search(started_at=NOON - timedelta(days=40 * n)) for n in (2, 1)]
    hot = [search(started_at=NEXT_YEAR - timedelta(hours=hours)) for hours in (3, 2)]
    send_and_wait(phoenix.url, follower.project, *old, *hot)
    follower.poll(at=NEXT_YEAR, **few)
    for span in (*old, *hot):
        judge(phoenix, span, {0: "relevant"})

    def read_span_ids() -> set[str]:
        return set(follower.spans)

    follower.poll(1, at=NEXT_YEAR, **few)
    assert read_span_ids() == {hot[1].span_id, old[0].span_id}
    judge(phoenix, hot[1], {1: "relevant"})
    follower.poll(2, at=NEXT_YEAR, **few)
    assert read_span_ids() == {hot[1].span_id, old[0].span_id, old[1].span_id}
    follower.poll(60, at=NEXT_YEAR, **few)
    assert read_span_ids() == {span.span_id for span in (*old, *hot)}


def test_a_search_with_clicks_is_mirrored_though_nobody_annotated_it(
    phoenix: PhoenixServer, follower: Follower
) -> None:
    def clicks(metadata: str, **changes: Any) -> SentSpan:
        return search(attributes={"metadata": metadata}, **changes)

    clicked = clicks('{"clicked_document_ids": ["d1", "gone"]}')
    others = [clicks('{"other": 1}'), clicks('{"clicked_document_ids": ["d1"]}', kind="TOOL"), search()]
    send_and_wait(phoenix.url, follower.project, clicked, *others)
    follower.poll()
    assert set(follower.spans) == {clicked.span_id}

    later = clicks('{"clicked_document_ids": "d0"}', query="another")
    send_and_wait(phoenix.url, follower.project, later)
    follower.poll(1)
    assert set(follower.spans) == {clicked.span_id, later.span_id}
    found = follower.retrievals
    assert [[d.relevant for d in retrieval.documents] for retrieval in found.retrievals] in (
        [[False, True, None], [True, None, None]],
        [[True, None, None], [False, True, None]],
    )
    assert found.dropped == {SearchDropReason.UNKNOWN_CLICK: 1}

    follower.poll(60)
    assert set(follower.spans) == {clicked.span_id, later.span_id}


def test_only_the_targets_own_searches_are_asked_about(phoenix: PhoenixServer, follower: Follower) -> None:
    mine = search(name="docs", attributes={"metadata": '{"tier": "gold"}'})
    others = [
        search(name="web", attributes={"metadata": '{"tier": "gold"}'}),
        search(name="docs", attributes={"metadata": '{"tier": "tin", "clicked_document_ids": ["d1"]}'}),
    ]
    send_and_wait(phoenix.url, follower.project, mine, *others)
    for span in (mine, *others):
        judge(phoenix, span, {0: "relevant"})

    which = SpanFilter(kind="RETRIEVER", name="docs", condition="metadata['tier'] == 'gold'")
    follower.poll(which=which)

    assert set(follower.spans) == {mine.span_id}
    assert follower.spans[mine.span_id].selected


def test_other_names_or_keys_start_the_mirror_anew(phoenix: PhoenixServer, follower: Follower) -> None:
    judged, clicked = search(), search(attributes={"metadata": '{"opened": ["d1"]}'})
    send_and_wait(phoenix.url, follower.project, judged, clicked)
    judge(phoenix, judged, {0: "relevant"})
    annotate(phoenix.url, clicked.span_id, name="something else")
    follower.poll()
    assert set(follower.spans) == {judged.span_id}

    emptied = follower.poll(1, used_keys={"opened"})
    assert not emptied.complete
    assert (follower.spans, follower.labels) == ({}, set())
    assert follower.poll(2, used_keys={"opened"}).complete
    assert set(follower.spans) == {judged.span_id, clicked.span_id}
    assert follower.labels == {(f"{judged.span_id}:0", "relevant")}


def test_a_target_of_another_kind_is_not_asked_for_documents(
    phoenix: PhoenixServer, follower: Follower
) -> None:
    judged = search()
    send_and_wait(phoenix.url, follower.project, judged, chat_span())
    judge(phoenix, judged, {0: "relevant"})
    assert is_empty(follower.poll(which=SpanFilter(), used_keys=()))


def test_a_long_back_fill_of_searches_comes_in_several_polls(
    phoenix: PhoenixServer, follower: Follower
) -> None:
    few = {"most_spans": 10, "subjects_a_call": 10, "traces_a_call": 10}
    spans = [search(query=f"query {n}", started_at=NOON + timedelta(seconds=n)) for n in range(60)]
    send_and_wait(phoenix.url, follower.project, *spans)
    for span in spans[::2]:
        judge(phoenix, span, {0: "relevant"})

    assert not follower.poll(**few).complete
    begun = len(follower.spans)
    assert 0 < begun < 30
    assert any(follower.poll(n, **few).complete for n in range(1, 6))
    assert set(follower.spans) == {span.span_id for span in spans[::2]}
    assert len(follower.annotations) == 30
