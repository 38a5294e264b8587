"""One RETRIEVER span becomes one search, or a reason to drop it.

A search is its query, the documents that were found, and the ids of those that were clicked or used.
Several spans that traced the same search become one.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from extractors.phoenix.spans import Span
from extractors.span_parsing.drop_reasons import DropReason, SearchDropReason, Unreadable
from extractors.span_parsing.messages.chat_messages import read_content
from extractors.span_parsing.nested_attributes import MOST_CHARACTERS, get_path, parse_json, to_entries
from extractors.span_parsing.ownership import (
    belongs_to_another,
    find_session,
    is_internal,
    read_metadata,
    to_identifier,
)
from extractors.values import Reasons, Value

QUERY_KEYS = ("query", "query_str", "question", "search_query", "text", "input")
"""Keys that may hold the query where `input.value` is a JSON object; the first that is there counts."""


class RetrievalRules(Value):
    """Keys under which a search names its documents and those that were used."""

    used_metadata_keys: tuple[str, ...] = ("clicked_document_ids", "used_document_ids")
    """Keys that hold a document's id or a list of them, in the metadata of the search's span or of an
    annotation on it (what was clicked is often known only later)."""
    document_id_metadata_keys: tuple[str, ...] = ("id", "document_id", "doc_id")
    """Keys in a document's own metadata that name it where it has no `document.id`."""


class FoundDocument(Value):
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
    found: tuple[FoundDocument, ...]
    used: tuple[str, ...]
    """Ids of documents that were clicked or used, as the span's metadata names them."""


def read_search(span: Span, rules: RetrievalRules, target: str | None) -> tuple[Search | None, Reasons]:
    """Return the search that `span` traced, and a count per reason of what was dropped.

    The search is None where the span holds none that can be read, or where it belongs to another target
    than `target` (`tenant/agent`; None accepts every one).
    """
    content = _read_content(span, rules, target)
    if isinstance(content, DropReason | SearchDropReason):
        return None, Reasons([content])
    query, found = content
    used, unreadable = read_used_ids(read_metadata(span.attributes), rules)
    search = Search(
        span_ids=(span.span_id,),
        trace_id=span.trace_id,
        session_id=find_session(span),
        started_at=span.started_at,
        query=query,
        found=found,
        used=used,
    )
    return search, unreadable


def _read_content(
    span: Span, rules: RetrievalRules, target: str | None
) -> tuple[str, tuple[FoundDocument, ...]] | DropReason | SearchDropReason:
    """Return the query and what was found, or the reason why the search cannot be used."""
    if belongs_to_another(span, target):
        return DropReason.OTHER_TARGET
    if is_internal(span):
        return DropReason.INTERNAL
    if span.status == "ERROR":
        return DropReason.FAILED
    try:
        query, found = read_query(span.attributes), _read_documents(span.attributes, rules)
    except Unreadable as unreadable:
        return unreadable.reason
    if not query:
        return SearchDropReason.NO_QUERY
    if not found:
        return SearchDropReason.NO_DOCUMENTS
    return _find_storage_obstacle(query, found) or (query, found)


def read_query(attributes: dict[str, Any]) -> str:
    """Return the query in `input.value`: text, or a JSON object with one of QUERY_KEYS; empty without one.

    Raises Unreadable.
    """
    value = get_path(attributes, "input.value")
    body = parse_json(value) if get_path(attributes, "input.mime_type") == "application/json" else value
    if isinstance(body, dict):
        body = next((body[key] for key in QUERY_KEYS if isinstance(body.get(key), str)), None)
    return body.strip() if isinstance(body, str) else ""


def _read_documents(attributes: dict[str, Any], rules: RetrievalRules) -> tuple[FoundDocument, ...]:
    listed = get_path(attributes, "retrieval.documents")
    if not listed:
        return ()
    return tuple(
        FoundDocument(position=position, id=_read_document_id(document, rules), text=_read_text(document))
        for position, entry in enumerate(to_entries(listed))
        if isinstance(document := entry.get("document"), dict)
    )


def _read_document_id(document: dict[str, Any], rules: RetrievalRules) -> str | None:
    metadata = read_metadata(document)
    candidates = (document.get("id"), *(metadata.get(key) for key in rules.document_id_metadata_keys))
    return next((found for candidate in candidates if (found := to_identifier(candidate))), None)


def _read_text(document: dict[str, Any]) -> str:
    """Return the document's content; empty where that is not text."""
    try:
        return read_content(document.get("content")).strip()
    except Unreadable:
        return ""


def _find_storage_obstacle(query: str, found: Sequence[FoundDocument]) -> DropReason | None:
    """Return the reason why the search cannot be stored; None where it can."""
    texts = [query, *(document.text for document in found)]
    if sum(map(len, texts)) > MOST_CHARACTERS:
        return DropReason.TOO_LARGE
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return DropReason.NOT_UNICODE
    return None


def read_used_ids(metadata: dict[str, Any], rules: RetrievalRules) -> tuple[tuple[str, ...], Reasons]:
    """Return the ids under the rules' keys, each once, and a count of the keys that cannot be read."""
    ids: list[str] = []
    unreadable = Reasons()
    for key in rules.used_metadata_keys:
        try:
            ids.extend(found for each in _to_list(metadata.get(key)) if (found := to_identifier(each)))
        except Unreadable:
            unreadable[SearchDropReason.CLICKS_UNREADABLE] += 1
    return tuple(dict.fromkeys(ids)), unreadable


def _to_list(value: Any) -> list[Any]:
    """Return one value, a list, or a list as JSON text as a list. Raises Unreadable."""
    if isinstance(value, str) and value.startswith("["):
        value = parse_json(value) or value
    return value if isinstance(value, list) else [value]


def merge_searches(searches: Iterable[Search]) -> list[Search]:
    """Return one search for each set of spans of one trace that have the same query and result list.

    A retriever that wraps another traces both; feedback may stand on either.
    """
    merged: dict[tuple[str, str, tuple[FoundDocument, ...]], Search] = {}
    for search in sorted(searches, key=lambda each: (each.started_at, each.span_ids)):
        same = (search.trace_id, search.query, search.found)
        merged[same] = _merge(merged[same], search) if same in merged else search
    return list(merged.values())


def _merge(outer: Search, inner: Search) -> Search:
    return inner.model_copy(
        update={
            "span_ids": outer.span_ids + inner.span_ids,
            "session_id": inner.session_id or outer.session_id,
            "used": tuple(dict.fromkeys(outer.used + inner.used)),
        }
    )
