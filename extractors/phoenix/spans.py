"""A span and an annotation as Phoenix holds them, before anything is made of them."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal

from extractors.values import Value

Level = Literal["span", "trace", "session", "document"]
Subject = tuple[Level, str]
"""What feedback is on: the level, and its id there."""
AnnotationKey = tuple[Level, str, str, str]


class Span(Value):
    """One span of a trace in which somebody left feedback.

    Only `selected` spans (those that the target's filter names) carry attributes; the others
    are kept so that feedback on an ancestor finds its way down.
    """

    span_id: str
    trace_id: str
    parent_id: str | None = None
    session_id: str | None = None
    name: str
    kind: str
    """OpenInference span kind, upper case; `UNKNOWN` where the span has none."""
    started_at: datetime
    """Aware UTC."""
    selected: bool
    status: Literal["UNSET", "OK", "ERROR"] = "UNSET"
    """OpenTelemetry status code."""
    attributes: dict[str, Any] = {}
    """Nested attribute roots (`llm`, `input`, `output`, `metadata`, `gen_ai`, …)."""


class Annotation(Value):
    """One annotation; Phoenix keeps one for each (subject, name, identifier)."""

    level: Level
    subject_id: str
    """OpenTelemetry span id, trace id, or session id, by `level`; of a document, see `document_subject`."""
    name: str
    identifier: str
    """Who said it, as Phoenix keeps it; empty for Phoenix's own page without sign-in."""
    annotator_kind: Literal["HUMAN", "LLM", "CODE"]
    label: str | None = None
    score: float | None = None
    explanation: str | None = None
    metadata: dict[str, Any] = {}
    updated_at: datetime
    """Aware UTC, one-second resolution."""

    @property
    def key(self) -> AnnotationKey:
        """What identifies it: row ids are reused by SQLite, time stamps are too coarse."""
        return (self.level, self.subject_id, self.name, self.identifier)


def document_subject(span_id: str, position: int) -> str:
    """The subject id of the document at `position` (from 0) in the result list of a RETRIEVER span."""
    return f"{span_id}:{position}"


def span_of_document(subject_id: str) -> str:
    """The span whose result list has the document with this subject id."""
    return subject_id.partition(":")[0]


def about(key: AnnotationKey) -> Subject:
    """Level and id of what the annotation at `key` is feedback on: for a document, its search's span."""
    level, subject_id, *_ = key
    return ("span", span_of_document(subject_id)) if level == "document" else (level, subject_id)


def by_subject(annotations: Iterable[Annotation]) -> dict[Subject, list[Annotation]]:
    """Annotations by what they are feedback on, in the order in which they came."""
    said: dict[Subject, list[Annotation]] = {}
    for annotation in annotations:
        said.setdefault((annotation.level, annotation.subject_id), []).append(annotation)
    return said


class SpanFilter(Value):
    """Which spans of the project are the target's calls."""

    kind: str = "LLM"
    """OpenInference span kind."""
    name: str | None = None
    """Exact span name."""
    attributes: dict[str, str | int | float | bool] = {}
    """Dotted attribute path to the value it must have, e.g. `"metadata.agent" = "router"`."""
    condition: str | None = None
    """A further condition in Phoenix's span-query language."""


LLM_ROOTS = frozenset({"llm", "gen_ai"})
"""Attribute roots that only calls of a language model have."""


def matches(span: Span, spans: SpanFilter) -> bool:
    """Whether kind, name and attributes of `span` are those that `spans` wants.

    The `condition` is Phoenix's to judge.
    """
    if not _is_kind(span, spans.kind.upper()) or spans.name not in (None, span.name):
        return False
    return all(_same(_at(span.attributes, path), value) for path, value in spans.attributes.items())


def _is_kind(span: Span, wanted: str) -> bool:
    """A span of unknown kind may be an LLM's: GenAI spans have none, and tracers that drop attributes
    drop it first. Such a span must be read to be counted; its attributes tell once it has any."""
    if wanted == "LLM" and span.kind == "UNKNOWN":
        return not span.selected or not span.attributes.keys().isdisjoint(LLM_ROOTS)
    return span.kind == wanted


def _at(attributes: dict[str, Any], path: str) -> Any:
    """The value at a dotted path; a key may itself hold dots, as keys of metadata do."""
    if path in attributes:
        return attributes[path]
    for key, value in attributes.items():
        if isinstance(value, dict) and path.startswith(f"{key}."):
            found = _at(value, path.removeprefix(f"{key}."))
            if found is not None:
                return found
    return None


def _same(found: Any, wanted: str | int | float | bool) -> bool:
    # In Python True == 1; in a trace a flag is no number.
    return isinstance(found, bool) == isinstance(wanted, bool) and bool(found == wanted)
