"""Tests of what is made of searches: judged documents and clicks."""

from typing import Any

import pytest

from extractors.examples.types import JudgedDocument
from extractors.feedback.extract import Extraction
from extractors.feedback.rules import FeedbackRules
from extractors.feedback.searches import RELEVANCE, extract_searches
from extractors.phoenix.spans import Annotation, Span
from extractors.span_parsing.drop_reasons import DropReason, SearchDropReason
from extractors.span_parsing.retriever_spans import RetrievalRules
from tests.support.traffic import annotation, span

RULES = FeedbackRules(annotations=(RELEVANCE,))
TEXTS = ("How to return a parcel", "Opening hours of our shops", "Refunds take five days")


def search(
    span_id: str = "s1", query: Any = "where is my refund?", texts: Any = TEXTS, **changes: Any
) -> Span:
    """A RETRIEVER span that found documents d0, d1, …"""
    documents = [{"document": {"id": f"d{n}", "content": text}} for n, text in enumerate(texts)]
    attributes = {
        "input": {"value": query},
        "retrieval": {"documents": documents},
        "metadata": changes.pop("metadata", {}),
        **changes.pop("attributes", {}),
    }
    return span(span_id, **{"kind": "RETRIEVER", "attributes": attributes, **changes})


def annotate_document(
    position: int, label: str | None = "relevant", span_id: str = "s1", **changes: Any
) -> Annotation:
    return annotation(
        f"{span_id}:{position}",
        label,
        **{"level": "document", "name": "relevance", "identifier": "", **changes},
    )


def read(*spans: Span, annotations: Any = (), **options: Any) -> Extraction:
    return extract_searches(spans, annotations, RULES, **options)


def relevance(*spans: Span, annotations: Any = (), **options: Any) -> list[bool | None]:
    (retrieval,) = read(*spans, annotations=annotations, **options).retrievals
    return [document.relevant for document in retrieval.documents]


def test_annotations_on_documents_say_which_are_relevant() -> None:
    annotations = [
        annotate_document(2),
        annotate_document(0, "unrelated"),
        annotate_document(1, None, score=0.5),
    ]
    (retrieval,) = read(search(session_id="s"), annotations=annotations).retrievals
    assert retrieval.query == "where is my refund?"
    assert retrieval.documents == (
        JudgedDocument(id="d0", text=TEXTS[0], relevant=False),
        JudgedDocument(id="d1", text=TEXTS[1], relevant=None),
        JudgedDocument(id="d2", text=TEXTS[2], relevant=True),
    )
    assert (retrieval.source_span_ids, retrieval.session_id, retrieval.outcome) == (("s1",), "s", "approved")


def test_a_score_counts_where_there_is_no_label() -> None:
    annotations = [
        annotate_document(0, None, score=1.0),
        annotate_document(1, None, score=0.0),
        annotate_document(2, "relevant", score=0.0),
    ]
    assert relevance(search(), annotations=annotations) == [True, False, True]


def test_a_persons_word_on_a_document_outranks_a_judges_and_disagreement_says_nothing() -> None:
    rules = FeedbackRules(annotations=(RELEVANCE, RELEVANCE.model_copy(update={"name": "second"})))
    annotations = [
        annotate_document(0, "relevant", annotator_kind="LLM"),
        annotate_document(0, "irrelevant", name="second"),
        annotate_document(1, "relevant"),
        annotate_document(1, "irrelevant", name="second"),
        annotate_document(2, "relevant"),
    ]
    found = extract_searches([search(metadata={"clicked_document_ids": ["d1"]})], annotations, rules)
    assert [document.relevant for document in found.retrievals[0].documents] == [False, None, True]
    assert found.dropped == {SearchDropReason.DOCUMENT_DISPUTED: 1}


@pytest.mark.parametrize("clicked", [["d1"], "d1", '["d1"]', ["d1", "d1"]])
def test_what_was_passed_over_on_the_way_to_a_click_is_irrelevant_and_what_lies_below_is_unknown(
    clicked: Any,
) -> None:
    assert relevance(search(metadata={"clicked_document_ids": clicked})) == [False, True, None]


def test_what_somebody_said_of_a_document_stands_against_clicks() -> None:
    clicked = search(metadata={"used_document_ids": ["d2"]})
    assert relevance(
        clicked, annotations=[annotate_document(0, "relevant"), annotate_document(2, "irrelevant")]
    ) == [
        True,
        False,
        False,
    ]


def test_clicks_that_come_later_stand_in_the_metadata_of_an_annotation_on_the_search() -> None:
    later = annotation("s1", None, metadata={"clicked_document_ids": ["d0"]})
    assert relevance(search(), annotations=[later]) == [True, None, None]


def test_a_click_on_a_document_that_is_not_in_the_list_is_counted() -> None:
    found = read(search(metadata={"clicked_document_ids": ["d0", "d9", "d8"]}))
    assert found.dropped == {SearchDropReason.UNKNOWN_CLICK: 2}
    assert [document.relevant for document in found.retrievals[0].documents] == [True, None, None]


def test_a_click_on_an_id_that_was_found_several_times_counts_for_the_first_alone() -> None:
    ids = ("a", "b", "c", "b", "d", "b")
    documents = [{"document": {"id": each, "content": f"part {n}"}} for n, each in enumerate(ids)]
    parts = search(
        attributes={"retrieval": {"documents": documents}}, metadata={"clicked_document_ids": ["b", "d"]}
    )
    found = read(parts)
    (retrieval,) = found.retrievals
    assert [each.relevant for each in retrieval.documents] == [False, True, False, None, True, None]
    assert found.dropped == {SearchDropReason.AMBIGUOUS_CLICK: 2}


@pytest.mark.parametrize("on_span", [True, False], ids=["span", "annotation"])
def test_clicks_that_are_too_long_to_be_read_are_counted_and_the_rest_stands(on_span: bool) -> None:
    clicks = {"clicked_document_ids": "[" * 600_000, "used_document_ids": "d0"}
    later = annotation("s1", None, metadata={} if on_span else clicks)
    found = read(search(metadata=clicks if on_span else {}), annotations=[later])
    assert [document.relevant for document in found.retrievals[0].documents] == [True, None, None]
    assert found.dropped == {SearchDropReason.CLICKS_UNREADABLE: 1}


def test_documents_are_named_by_their_metadata_where_they_have_no_id_and_by_other_keys_where_rules_say() -> (
    None
):
    documents = [
        {"document": {"content": "a b", "metadata": {"doc_id": 7}}},
        {"document": {"content": "c d", "metadata": '{"key": "k"}'}},
    ]
    rules = RetrievalRules(used_metadata_keys=("opened",), document_id_metadata_keys=("doc_id", "key"))
    opened = search(
        attributes={"retrieval": {"documents": documents}},
        metadata='{"opened": [7, "k"], "used_document_ids": ["x"]}',
    )
    found = extract_searches([opened], [], RULES, rules)
    assert [(d.id, d.relevant) for d in found.retrievals[0].documents] == [("7", True), ("k", True)]
    assert found.dropped == {}


def test_an_id_is_never_taken_for_a_text() -> None:
    documents = [{"document": {"id": "d0"}}, {"document": {"id": "d1", "content": "  "}}]
    documents.append({"document": {"id": "d2", "content": "a text"}})
    bare = search(
        attributes={"retrieval": {"documents": documents}}, metadata={"clicked_document_ids": ["d0", "d2"]}
    )
    found = read(bare)
    assert found.retrievals[0].documents == (JudgedDocument(id="d2", text="a text", relevant=True),)
    assert found.dropped == {SearchDropReason.NO_TEXT: 2}


def test_a_text_that_was_found_twice_is_one_document() -> None:
    twice = search(texts=("A  text", "b", "a text"), metadata={"clicked_document_ids": ["d2"]})
    assert relevance(twice) == [True, False]


def test_a_query_may_stand_in_a_json_object() -> None:
    attributes = {"input": {"value": '{"top_k": 3, "query": "refund?"}', "mime_type": "application/json"}}
    (retrieval,) = read(search(attributes=attributes), annotations=[annotate_document(0)]).retrievals
    assert retrieval.query == "refund?"


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (search(query=None), SearchDropReason.NO_QUERY),
        (search(query={"a": 1}), SearchDropReason.NO_QUERY),
        (search(texts=()), SearchDropReason.NO_DOCUMENTS),
        (search(attributes={"retrieval": {"documents": "x"}}), DropReason.MALFORMED),
        (
            search(attributes={"retrieval": {"documents": [{}, {"document": {"content": "x"}}]}}),
            DropReason.TRUNCATED,
        ),
        (search(texts=("\ud800",)), DropReason.NOT_UNICODE),
        (search(texts=("x" * 600_000,)), DropReason.TOO_LARGE),
        (search(status="ERROR"), DropReason.FAILED),
        (search(metadata={"learnd_internal": True}), DropReason.INTERNAL),
        (search(attributes={"learnd": {"tenant": "globex", "agent": "find"}}), DropReason.OTHER_TARGET),
        (search(), SearchDropReason.NO_JUDGEMENT),
    ],
)
def test_a_search_that_teaches_nothing_is_dropped_with_the_reason(broken: Span, reason: str) -> None:
    found = read(
        broken,
        annotations=[] if reason is SearchDropReason.NO_JUDGEMENT else [annotate_document(0)],
        target="acme/find",
    )
    assert found.retrievals == ()
    assert found.dropped == {reason.value: 1}


def test_spans_that_the_filter_does_not_name_are_no_searches() -> None:
    assert read(search(selected=False), annotations=[annotate_document(0)]) == Extraction(
        retrievals=(), dropped={}
    )


def test_a_search_that_two_spans_traced_is_one_and_has_the_feedback_on_both() -> None:
    outer, inner = search("s1", trace_id="t"), search("s2", minute=0.1, trace_id="t")
    (retrieval,) = read(
        inner, outer, annotations=[annotate_document(0), annotate_document(1, "irrelevant", "s2")]
    ).retrievals
    assert retrieval.source_span_ids == ("s1", "s2")
    assert [document.relevant for document in retrieval.documents] == [True, False, None]


def test_a_search_belongs_to_the_session_that_any_convention_names() -> None:
    named = search(attributes={"gen_ai": {"conversation": {"id": "abc"}}})
    assert read(named, annotations=[annotate_document(0)]).retrievals[0].session_id == "abc"


def test_the_same_search_with_the_same_judgements_counts_once_a_session() -> None:
    spans = [search(f"s{n}", minute=n, session_id="a" if n < 2 else "b") for n in range(3)]
    found = read(*spans, annotations=[annotate_document(0, span_id=f"s{n}") for n in range(3)])
    assert [retrieval.source_span_ids for retrieval in found.retrievals] == [("s1",), ("s2",)]
    assert found.dropped == {SearchDropReason.REPEATED_SEARCH: 1}
