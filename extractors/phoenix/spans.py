"""Spans and annotations as Phoenix holds them."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal

from extractors.values import Value

Level = Literal["span", "trace", "session", "document"]
SubjectKey = tuple[Level, str]
"""The subject of feedback: its level, and its id there."""
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
    """Nested attribute roots (`llm`, `input`, `output`, `metadata`, `gen_ai`, …).

    Under `events` stand the GenAI events of a span whose attributes lack its messages: a list of
    `{"name": …, "attributes": {…}}`, those keys flat. Some tracers write an attribute of that name
    themselves; then it stands there as they wrote it.
    """


class Annotation(Value):
    """One annotation; Phoenix keeps one for each (subject, name, identifier)."""

    level: Level
    subject_id: str
    """OpenTelemetry span id, trace id, or session id, by `level`; of a document, see `build_document_id`."""
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
        """The key that identifies it: SQLite reuses row ids, and time stamps are too coarse."""
        return (self.level, self.subject_id, self.name, self.identifier)


def build_document_id(span_id: str, position: int) -> str:
    """Return the subject id of the document at `position` (from 0) in the results of a RETRIEVER span."""
    return f"{span_id}:{position}"


def parse_document_id(subject_id: str) -> str:
    """Return the id of the span whose results have the document with this subject id."""
    return subject_id.partition(":")[0]


def to_subject(key: AnnotationKey) -> SubjectKey:
    """Return the subject of the annotation at `key`: for a document, the span of its search."""
    level, subject_id, *_ = key
    return ("span", parse_document_id(subject_id)) if level == "document" else (level, subject_id)


def group_by_subject(annotations: Iterable[Annotation]) -> dict[SubjectKey, list[Annotation]]:
    """Return the annotations of each subject, in the order in which they came."""
    grouped: dict[SubjectKey, list[Annotation]] = {}
    for annotation in annotations:
        grouped.setdefault((annotation.level, annotation.subject_id), []).append(annotation)
    return grouped


class SpanFilter(Value):
    """The filter that tells the target's calls from the project's other spans."""

    kind: str = "LLM"
    """OpenInference span kind."""
    name: str | None = None
    """Exact span name."""
    attributes: dict[str, str | int | float | bool] = {}
    """Dotted attribute path to the value it must have, e.g. `"metadata.agent" = "router"`."""
    condition: str | None = None
    """A further condition in Phoenix's span-query language."""


ATTRIBUTE_ROOTS = (
    "input",
    "output",
    "llm",
    "metadata",
    "session",
    "user",
    "tag",
    "retrieval",
    "gen_ai",
    "ai",
    "events",
    "learnd",
)
"""Attribute roots that extraction reads; a target's filter may name more.

A mirror that was read with other roots is read anew (`MirrorSource.build_id`).
"""

LLM_ROOTS = frozenset({"llm", "gen_ai"})
"""Attribute roots that only calls of a language model have."""
LLM_PATHS = ("ai.prompt.messages",)
"""Attributes that only calls of a language model have, under a root that other spans have too.

Vercel's AI SDK writes this one on the request to the model, not on the spans around it.
"""

_EVENTS_ROOT = "gen_ai"
"""Tracers that write messages as events of a span write this root among its attributes."""
_EVENT_PREFIX = "gen_ai."
_MESSAGES = (
    ("llm.input_messages", "input.value", "gen_ai.input.messages", "gen_ai.prompt"),
    ("llm.output_messages", "output.value", "gen_ai.output.messages", "gen_ai.completion"),
)
"""Attributes that hold the prompt, and those that hold the answer."""


def matches(span: Span, spans: SpanFilter) -> bool:
    """Return whether `span` has the kind, name and attributes that the filter `spans` asks for.

    Only Phoenix can evaluate the `condition`.
    """
    if not _is_kind(span, spans.kind.upper()) or spans.name not in (None, span.name):
        return False
    return all(
        _is_equal(_find_value(span.attributes, path), value) for path, value in spans.attributes.items()
    )


def lacks_messages(attributes: dict[str, Any]) -> bool:
    """Return whether these are a GenAI span's and lack the prompt or the answer: events may hold it."""
    if _EVENTS_ROOT not in attributes or "events" in attributes or _has_llm_path(attributes):
        return False
    return any(all(_find_value(attributes, path) is None for path in side) for side in _MESSAGES)


def add_events(span: Span, events: Iterable[Mapping[str, Any]]) -> Span:
    """Return `span` with those of its `events` that may hold messages, where its attributes lack these."""
    kept = [
        {"name": event["name"], "attributes": event["attributes"]}
        for event in events
        if event["name"].startswith(_EVENT_PREFIX)
    ]
    if not kept or not lacks_messages(span.attributes):
        return span
    return span.model_copy(update={"attributes": {**span.attributes, "events": kept}})


def _has_llm_path(attributes: dict[str, Any]) -> bool:
    return any(_find_value(attributes, path) is not None for path in LLM_PATHS)


def _is_kind(span: Span, wanted: str) -> bool:
    """Return whether the span has this kind.

    A span of unknown kind may be an LLM's: GenAI spans have none, and tracers that drop attributes drop
    it first. Such a span must be read to be counted; its attributes tell once it has any.
    """
    if wanted == "LLM" and span.kind == "UNKNOWN":
        signed = not span.attributes.keys().isdisjoint(LLM_ROOTS) or _has_llm_path(span.attributes)
        return not span.selected or signed
    return span.kind == wanted


def _find_value(attributes: dict[str, Any], path: str) -> Any:
    """The value at a dotted path; a key may itself hold dots, as keys of metadata do."""
    if path in attributes:
        return attributes[path]
    for key, value in attributes.items():
        if isinstance(value, dict) and path.startswith(f"{key}."):
            found = _find_value(value, path.removeprefix(f"{key}."))
            if found is not None:
                return found
    return None


def _is_equal(found: Any, wanted: str | int | float | bool) -> bool:
    # In Python True == 1; in a trace a flag is no number.
    return isinstance(found, bool) == isinstance(wanted, bool) and bool(found == wanted)
