"""From RETRIEVER spans to reviewed searches, and from those to triplets for embeddings.

    spans ──> searches (each traced once or twice) ──> judged documents ──> triplets

People say which documents answer a query in annotations on documents, read by the target's
feedback rules, or by using them: ids in the search's metadata. Where somebody judged a document,
what was clicked says nothing more about it. A document that was passed over on the way to a
clicked one counts as irrelevant; one below the last click was perhaps never seen, and counts as
nothing (Joachims 2002, "Optimizing search engines using clickthrough data": "skip above").
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any

from extractors.examples.prompt_keys import normalised, query_key
from extractors.examples.types import JudgedDocument, Message, ReviewedRetrieval
from extractors.feedback.rules import AnnotationRule, FeedbackRules, resolve
from extractors.phoenix.spans import Annotation, Span, Subject, by_subject, document_subject
from extractors.span_parsing.calls import identifier, is_anothers, is_internal, metadata_of, session_of
from extractors.span_parsing.chat_messages import read_content
from extractors.span_parsing.drop_reasons import DropReason, Drops, Unreadable
from extractors.span_parsing.nested_attributes import MOST_CHARACTERS, at, entries, parsed
from extractors.values import Value

RELEVANCE = AnnotationRule(
    name="relevance",
    approved_labels=("relevant", "approved", "correct", "good", "thumbs_up", "👍"),
    rejected_labels=("irrelevant", "unrelated", "not relevant", "rejected", "bad", "thumbs_down", "👎"),
    approved_from=1.0,
    rejected_to=0.0,
)
"""How Phoenix's own relevance evaluators and its document page speak of documents."""
QUERY_KEYS = ("query", "query_str", "question", "search_query", "text", "input")
"""Where the query stands in an `input.value` that is a JSON object, the first that is there."""


class RetrievalDrop(StrEnum):
    """Why a search, a document or a click teaches nothing. Each is counted and shown to the operator."""

    NO_QUERY = "the search recorded no query that can be read"
    NO_DOCUMENTS = "the search recorded no documents"
    NO_TEXT = "a document of a search has no text, and an id is not trained on"
    NO_JUDGEMENT = "nobody said which documents of this search are relevant"
    DOCUMENT_DISPUTED = "reviewers disagree about a document of a search"
    UNKNOWN_CLICK = "a clicked or used document is not in the search's result list"
    AMBIGUOUS_CLICK = "a further document with an id that was clicked or used: nothing says which one it was"
    CLICKS_UNREADABLE = "what was clicked or used is too long a text to be a list of ids"
    REPEATED_SEARCH = "the same search with the same judgements again in one session"
    NO_RELEVANT = "no document of this search is relevant, so there is nothing to move the query to"
    NO_IRRELEVANT = "no document of this search is irrelevant, so there is nothing to tell apart"
    SAME_AS_RELEVANT = "a document called irrelevant says the same as a relevant one of the query"
    BEYOND_MOST = "more triplets for one query than are wanted"
    ENOUGH = "newer searches of its query give as many triplets as are wanted"


Drop = Callable[..., None]
"""`Drops.add` for the spans of one search: takes the reason, and a `count`."""


class RetrievalRules(Value):
    """Where a search says which of its documents were used."""

    used_metadata_keys: tuple[str, ...] = ("clicked_document_ids", "used_document_ids")
    """Keys that hold a document's id or a list of them, in the metadata of the search's span or of an
    annotation on it (what was clicked is often known only later)."""
    document_id_metadata_keys: tuple[str, ...] = ("id", "document_id", "doc_id")
    """Where a document that has no `document.id` names itself in its own metadata."""


class Retrievals(Value):
    """What the searches of one target teach."""

    retrievals: tuple[ReviewedRetrieval, ...]
    """Oldest first."""
    dropped: dict[str, int]
    """Searches, documents and clicks that teach nothing, by reason in words."""
    dropped_spans: dict[str, tuple[str, ...]] = {}
    """Ids of the newest spans among them, the newest last, by the same reason."""


class Found(Value):
    """One document of a result list."""

    position: int
    """In the list as it was traced, from 0."""
    id: str | None
    text: str
    """Empty where none was recorded."""


class Search(Value):
    """One search, whichever spans traced it."""

    span_ids: tuple[str, ...]
    trace_id: str
    session_id: str | None
    started_at: datetime
    query: str
    found: tuple[Found, ...]
    used: tuple[str, ...]
    """Ids of documents that were clicked or used, as the span's metadata names them."""


def reviewed_retrievals(
    spans: Iterable[Span],
    annotations: Iterable[Annotation],
    rules: FeedbackRules,
    retrieval_rules: RetrievalRules | None = None,
    *,
    target: str | None = None,
) -> Retrievals:
    """The searches among the selected `spans` in which somebody called a document relevant or not.

    The order of spans and annotations does not matter. With a `target` (`tenant/agent`), searches
    that another target's spans hold are dropped. Never raises on what spans and annotations hold.
    """
    used = retrieval_rules or RetrievalRules()
    said = by_subject(annotations)
    dropped = Drops()
    searches: list[Search] = []
    once = {span.span_id: span for span in spans}.values()
    for span in sorted(once, key=lambda span: (span.started_at, span.span_id)):
        if not span.selected:
            continue
        drop = partial(dropped.add, spans=[span.span_id])
        search = _read(span, used, target, drop)
        if isinstance(search, Search):
            searches.append(search)
        else:
            drop(search)
    reviewed: dict[tuple[str, str], ReviewedRetrieval] = {}
    for search in merge_searches(searches):
        drop = partial(dropped.add, spans=search.span_ids)
        retrieval = _reviewed(search, said, rules, used, drop)
        if retrieval is None:
            continue
        known = (retrieval.session_id or retrieval.trace_id, retrieval.id)
        drop(RetrievalDrop.REPEATED_SEARCH, count=known in reviewed)
        reviewed[known] = retrieval
    ordered = sorted(reviewed.values(), key=lambda each: (each.started_at, each.source_span_ids))
    return Retrievals(retrievals=tuple(ordered), dropped=dropped.counts, dropped_spans=dropped.spans)


# ---- reading a span


def _read(
    span: Span, rules: RetrievalRules, target: str | None, drop: Drop
) -> Search | DropReason | RetrievalDrop:
    if is_anothers(span, target):
        return DropReason.OTHER_TARGET
    if is_internal(span):
        return DropReason.INTERNAL
    if span.status == "ERROR":
        return DropReason.FAILED
    try:
        query, found = read_query(span.attributes), _found(span.attributes, rules)
    except Unreadable as unreadable:
        return unreadable.reason
    if not query:
        return RetrievalDrop.NO_QUERY
    if not found:
        return RetrievalDrop.NO_DOCUMENTS
    return _storable(query, found) or Search(
        span_ids=(span.span_id,),
        trace_id=span.trace_id,
        session_id=session_of(span),
        started_at=span.started_at,
        query=query,
        found=found,
        used=_used(metadata_of(span.attributes), rules, drop),
    )


def read_query(attributes: dict[str, Any]) -> str:
    """The query in `input.value`: text, or a JSON object with one of QUERY_KEYS; empty without one.

    Raises Unreadable.
    """
    value = at(attributes, "input.value")
    body = parsed(value) if at(attributes, "input.mime_type") == "application/json" else value
    if isinstance(body, dict):
        body = next((body[key] for key in QUERY_KEYS if isinstance(body.get(key), str)), None)
    return body.strip() if isinstance(body, str) else ""


def _found(attributes: dict[str, Any], rules: RetrievalRules) -> tuple[Found, ...]:
    listed = at(attributes, "retrieval.documents")
    if not listed:
        return ()
    return tuple(
        Found(position=position, id=_document_id(document, rules), text=_text(document))
        for position, entry in enumerate(entries(listed))
        if isinstance(document := entry.get("document"), dict)
    )


def _document_id(document: dict[str, Any], rules: RetrievalRules) -> str | None:
    metadata = metadata_of(document)
    candidates = (document.get("id"), *(metadata.get(key) for key in rules.document_id_metadata_keys))
    return next((found for candidate in candidates if (found := identifier(candidate))), None)


def _text(document: dict[str, Any]) -> str:
    """What the document says; empty where that is no text."""
    try:
        return read_content(document.get("content")).strip()
    except Unreadable:
        return ""


def _storable(query: str, found: Sequence[Found]) -> DropReason | None:
    """Why the search could not be kept; None where it can."""
    texts = [query, *(document.text for document in found)]
    if sum(map(len, texts)) > MOST_CHARACTERS:
        return DropReason.TOO_LARGE
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return DropReason.NOT_UNICODE
    return None


def _used(metadata: dict[str, Any], rules: RetrievalRules, drop: Drop) -> tuple[str, ...]:
    """The ids under the rules' keys."""
    ids: list[str] = []
    for key in rules.used_metadata_keys:
        try:
            ids.extend(found for each in _listed(metadata.get(key)) if (found := identifier(each)))
        except Unreadable:
            drop(RetrievalDrop.CLICKS_UNREADABLE)
    return tuple(dict.fromkeys(ids))


def _listed(value: Any) -> list[Any]:
    """One value, a list, or a list as JSON text. Raises Unreadable."""
    if isinstance(value, str) and value.startswith("["):
        value = parsed(value) or value
    return value if isinstance(value, list) else [value]


def merge_searches(searches: Iterable[Search]) -> list[Search]:
    """One search for each set of spans of one trace that have the same query and result list.

    A retriever that wraps another traces both; feedback may stand on either.
    """
    merged: dict[tuple[str, str, tuple[Found, ...]], Search] = {}
    for search in sorted(searches, key=lambda each: (each.started_at, each.span_ids)):
        same = (search.trace_id, search.query, search.found)
        outer = merged.get(same)
        merged[same] = (
            search
            if outer is None
            else search.model_copy(
                update={
                    "span_ids": outer.span_ids + search.span_ids,
                    "session_id": search.session_id or outer.session_id,
                    "used": tuple(dict.fromkeys(outer.used + search.used)),
                }
            )
        )
    return list(merged.values())


# ---- what people said


def _reviewed(
    search: Search,
    said: Mapping[Subject, list[Annotation]],
    rules: FeedbackRules,
    retrieval_rules: RetrievalRules,
    drop: Drop,
) -> ReviewedRetrieval | None:
    """The search with what people said of its documents; None where they said nothing that counts."""
    used = {*search.used}
    for span_id in search.span_ids:
        for annotation in said.get(("span", span_id), []):
            used.update(_used(annotation.metadata, retrieval_rules, drop))
    drop(RetrievalDrop.UNKNOWN_CLICK, count=len(used - {document.id for document in search.found}))
    judged = _judgements(search, said, rules, drop)
    by_click = _clicks(search.found, used, drop)
    relevant = [judged.get(document.position, by_click[rank]) for rank, document in enumerate(search.found)]
    documents = _documents(search.found, relevant, drop)
    if all(document.relevant is None for document in documents):
        drop(RetrievalDrop.NO_JUDGEMENT)
        return None
    return ReviewedRetrieval(
        query=search.query,
        documents=documents,
        source_span_ids=search.span_ids,
        trace_id=search.trace_id,
        session_id=search.session_id,
        prompt_key=query_key(search.query),
        started_at=search.started_at,
    )


def _judgements(
    search: Search,
    said: Mapping[Subject, list[Annotation]],
    rules: FeedbackRules,
    drop: Drop,
) -> dict[int, bool | None]:
    """By position, whether annotations call a document relevant; None where reviewers disagree."""
    judged: dict[int, bool | None] = {}
    for document in search.found:
        subjects = [document_subject(span_id, document.position) for span_id in search.span_ids]
        annotations = [each for subject in subjects for each in said.get(("document", subject), [])]
        verdict = resolve(annotations, Message(role="assistant", content=document.text), rules)
        if isinstance(verdict, DropReason):
            drop(RetrievalDrop.DOCUMENT_DISPUTED)
            judged[document.position] = None
        elif verdict is not None:
            judged[document.position] = verdict.outcome == "approved"
    return judged


def _clicks(found: Sequence[Found], used: set[str], drop: Drop) -> list[bool | None]:
    """What clicks say: relevant, passed over on the way to a click, or nothing, a document each.

    An id may name a whole document of which several parts were found: which of them was read cannot be
    known. The one that was ranked highest counts, its other parts are neither relevant nor irrelevant.
    """
    says: list[bool | None] = []
    read: set[str | None] = set()
    for document in found:
        click: bool | None = document.id in used
        if document.id in read:
            drop(RetrievalDrop.AMBIGUOUS_CLICK)
            click = None
        elif click:
            read.add(document.id)
        says.append(click)
    last = max((rank for rank, click in enumerate(says) if click), default=-1)
    return [click if rank <= last else None for rank, click in enumerate(says)]


def _documents(
    found: Sequence[Found], relevant: Sequence[bool | None], drop: Drop
) -> tuple[JudgedDocument, ...]:
    """The documents with text, each text once, in the order in which they were found."""
    documents: dict[str, JudgedDocument] = {}
    for document, judgement in zip(found, relevant, strict=True):
        if not document.text:
            drop(RetrievalDrop.NO_TEXT)
            continue
        key = normalised(document.text)
        twin = documents.get(key)
        if twin is None:
            documents[key] = JudgedDocument(id=document.id, text=document.text, relevant=judgement)
        elif judgement is not None:
            # Whoever clicked one of two equal texts did not pass the other over.
            either = bool(twin.relevant) or judgement
            documents[key] = twin.model_copy(update={"relevant": either})
    return tuple(documents.values())


# ---- triplets
