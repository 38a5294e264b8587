"""From RETRIEVER spans to reviewed searches.

    spans ──> searches (each traced once or twice) ──> judged documents

People say which documents answer a query in annotations on documents, read by the target's
feedback rules, or by using them: ids in the search's metadata. Where somebody judged a document,
what was clicked says nothing more about it. A document that was passed over on the way to a
clicked one counts as irrelevant; one below the last click was perhaps never seen, and counts as
nothing (Joachims 2002, "Optimizing search engines using clickthrough data": "skip above").
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from extractors.examples.prompt_keys import compute_query_key, normalise
from extractors.examples.types import JudgedDocument, Message, ReviewedRetrieval
from extractors.feedback.copied_votes import drop_copied_votes
from extractors.feedback.extract import Extraction
from extractors.feedback.rules import AnnotationRule, FeedbackRules, resolve_verdict
from extractors.feedback.unknown_labels import count_unknown_labels
from extractors.phoenix.spans import Annotation, Span, SubjectKey, build_document_id, group_by_subject
from extractors.span_parsing.drop_reasons import DropReason, Drops, SearchDropReason
from extractors.span_parsing.retriever_spans import (
    FoundDocument,
    RetrievalRules,
    Search,
    merge_searches,
    read_search,
    read_used_ids,
)
from extractors.values import Reasons

RELEVANCE = AnnotationRule(
    name="relevance",
    approved_labels=("relevant", "approved", "correct", "good", "thumbs_up", "👍"),
    rejected_labels=("irrelevant", "unrelated", "not relevant", "rejected", "bad", "thumbs_down", "👎"),
    approved_from=1.0,
    rejected_to=0.0,
)
"""The words of Phoenix's own relevance evaluators and of its document page."""

AnnotationsBySubject = Mapping[SubjectKey, list[Annotation]]


def extract_searches(
    spans: Iterable[Span],
    annotations: Iterable[Annotation],
    rules: FeedbackRules,
    retrieval_rules: RetrievalRules | None = None,
    *,
    target: str | None = None,
) -> Extraction:
    """Return the searches among the selected `spans` in which somebody called a document relevant or not.

    Only `retrievals` and what was dropped or unknown are filled; dropped documents and clicks are counted,
    too. The order of spans and annotations does not matter. With a `target` (`tenant/agent`), searches
    that another target's spans hold are dropped. Never raises on what spans and annotations hold.
    """
    retrieval_rules = retrieval_rules or RetrievalRules()
    annotations = drop_copied_votes(annotations)
    annotated = group_by_subject(annotations)
    searches, dropped = _read_searches(spans, retrieval_rules, target)
    reviewed: dict[tuple[str, str], ReviewedRetrieval] = {}
    for search in merge_searches(searches):
        retrieval, reasons = _review(search, annotated, rules, retrieval_rules)
        if retrieval is not None:
            known = (retrieval.session_id or retrieval.trace_id, retrieval.id)
            reasons[SearchDropReason.REPEATED_SEARCH] += known in reviewed
            reviewed[known] = retrieval
        dropped.add_counts(reasons, search.span_ids)
    ordered = sorted(reviewed.values(), key=lambda each: (each.started_at, each.source_span_ids))
    return Extraction(
        retrievals=tuple(ordered),
        dropped=dropped.counts,
        dropped_spans=dropped.spans,
        unknown_labels=count_unknown_labels(annotations, rules, frozenset({"document"})),
    )


def _read_searches(
    spans: Iterable[Span], rules: RetrievalRules, target: str | None
) -> tuple[list[Search], Drops]:
    """Return the searches that the selected spans hold, oldest first, and what cannot be read."""
    searches: list[Search] = []
    dropped = Drops()
    once = {span.span_id: span for span in spans}.values()
    for span in sorted(once, key=lambda span: (span.started_at, span.span_id)):
        if not span.selected:
            continue
        search, reasons = read_search(span, rules, target)
        dropped.add_counts(reasons, [span.span_id])
        if search is not None:
            searches.append(search)
    return searches, dropped


def _review(
    search: Search, annotated: AnnotationsBySubject, rules: FeedbackRules, retrieval_rules: RetrievalRules
) -> tuple[ReviewedRetrieval | None, Reasons]:
    """Return the search with people's judgements of its documents, and a count per reason of what is dropped.

    The search is None where nobody said anything about it that counts.
    """
    used, unreadable = _collect_used_ids(search, annotated, retrieval_rules)
    unknown = used - {document.id for document in search.found}
    judged, disputed = _judge_by_annotations(search, annotated, rules)
    by_click, ambiguous = _judge_by_clicks(search.found, used)
    relevant = [judged.get(document.position, by_click[rank]) for rank, document in enumerate(search.found)]
    documents, without_text = _merge_documents(search.found, relevant)
    reasons = unreadable + disputed + ambiguous + without_text
    reasons[SearchDropReason.UNKNOWN_CLICK] += len(unknown)
    if all(document.relevant is None for document in documents):
        reasons[SearchDropReason.NO_JUDGEMENT] += 1
        return None, reasons
    retrieval = ReviewedRetrieval(
        query=search.query,
        documents=documents,
        source_span_ids=search.span_ids,
        trace_id=search.trace_id,
        session_id=search.session_id,
        prompt_key=compute_query_key(search.query),
        started_at=search.started_at,
    )
    return retrieval, reasons


def _collect_used_ids(
    search: Search, annotated: AnnotationsBySubject, rules: RetrievalRules
) -> tuple[set[str], Reasons]:
    """Return the ids that the search or an annotation on it names, and a count of what cannot be read."""
    annotations = chain.from_iterable(annotated.get(("span", span_id), []) for span_id in search.span_ids)
    used, unreadable = {*search.used}, Reasons()
    for annotation in annotations:
        ids, reasons = read_used_ids(annotation.metadata, rules)
        used.update(ids)
        unreadable += reasons
    return used, unreadable


def _judge_by_annotations(
    search: Search, annotated: AnnotationsBySubject, rules: FeedbackRules
) -> tuple[dict[int, bool | None], Reasons]:
    """Return by position whether annotations call a document relevant, and a count of the disputed ones.

    The judgement is None where reviewers disagree; documents that nobody judged are left out.
    """
    judged: dict[int, bool | None] = {}
    disputed = Reasons()
    for document in search.found:
        subjects = [build_document_id(span_id, document.position) for span_id in search.span_ids]
        annotations = [each for subject in subjects for each in annotated.get(("document", subject), [])]
        verdict = resolve_verdict(annotations, Message(role="assistant", content=document.text), rules)
        if isinstance(verdict, DropReason):
            disputed[SearchDropReason.DOCUMENT_DISPUTED] += 1
            judged[document.position] = None
        elif verdict is not None:
            judged[document.position] = verdict.outcome == "approved"
    return judged, disputed


def _judge_by_clicks(found: Sequence[FoundDocument], used: set[str]) -> tuple[list[bool | None], Reasons]:
    """Return one judgement a document, and a count of the clicks that may mean several documents.

    True for a document that was clicked, False for one that was passed over on the way to a click, else None.
    An id may name a whole document of which several parts were found: which of them was read cannot be
    known. The one that was ranked highest counts, its other parts are neither relevant nor irrelevant.
    """
    judged: list[bool | None] = []
    read: set[str | None] = set()
    ambiguous = Reasons()
    for document in found:
        click: bool | None = document.id in used
        if document.id in read:
            ambiguous[SearchDropReason.AMBIGUOUS_CLICK] += 1
            click = None
        elif click:
            read.add(document.id)
        judged.append(click)
    last = max((rank for rank, click in enumerate(judged) if click), default=-1)
    return [click if rank <= last else None for rank, click in enumerate(judged)], ambiguous


def _merge_documents(
    found: Sequence[FoundDocument], relevant: Sequence[bool | None]
) -> tuple[tuple[JudgedDocument, ...], Reasons]:
    """Return the documents with text, each text once, as ordered in `found`, and a count of the others.

    `relevant` holds one judgement for each document of `found`.
    """
    documents: dict[str, JudgedDocument] = {}
    without_text = Reasons()
    for document, judgement in zip(found, relevant, strict=True):
        if not document.text:
            without_text[SearchDropReason.NO_TEXT] += 1
            continue
        key = normalise(document.text)
        twin = documents.get(key)
        if twin is None:
            documents[key] = JudgedDocument(id=document.id, text=document.text, relevant=judgement)
        elif judgement is not None:
            # Whoever clicked one of two equal texts did not pass the other over.
            either = bool(twin.relevant) or judgement
            documents[key] = twin.model_copy(update={"relevant": either})
    return tuple(documents.values()), without_text
