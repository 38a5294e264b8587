"""The local mirror of what matters in Phoenix, and the pure difference between two looks at it.

Nothing in Phoenix filters annotations by time, so their state is swept and compared. The clients read,
`poll.py` and `sweep.py` decide what to look at, the functions here say what changed, and the store keeps it.
"""

from collections.abc import Collection, Iterable
from datetime import date, datetime, timedelta
from typing import Protocol

from extractors.phoenix.spans import (
    ATTRIBUTE_ROOTS,
    Annotation,
    AnnotationKey,
    Level,
    Span,
    SpanFilter,
)
from extractors.values import Value, content_id


class MirrorSource(Value):
    """The part of Phoenix that is mirrored for one target."""

    project: str
    spans: SpanFilter = SpanFilter()
    """The target's calls; annotations on documents are read where they are RETRIEVERs."""
    annotation_names: frozenset[str]
    used_keys: frozenset[str] = frozenset()
    """Keys of metadata that are feedback without an annotation: spans with one are mirrored, too."""

    def build_id(self, project_id: str) -> str:
        """Return the content id of project, span filter, annotation names, keys and attribute roots."""
        parts = [project_id, self.spans.model_dump(), sorted(self.annotation_names), sorted(ATTRIBUTE_ROOTS)]
        return content_id([*parts, sorted(self.used_keys)] if self.used_keys else parts)


class PollRules(Value):
    """Limits of one poll."""

    full_sweep_after: timedelta = timedelta(minutes=30)
    """Time after which everything is read again, whatever the gate says."""
    most_spans: int = 10_000
    """Spans with attributes that a change holds, about: this bounds its memory."""
    cold_reads: int = 2_000
    """Older subjects whose annotations are read in one poll, those read longest ago first."""
    newest_searches: int = 2_000
    """Newest searches whose documents' annotations are read in one poll; it takes about a second."""
    traces_a_call: int = 250
    subjects_a_call: int = 500


class MirrorState(Value):
    """The position up to which the mirror has read; without arguments, nothing was read yet."""

    source: str | None = None
    """Id of what is mirrored (`MirrorSource.build_id`). When it changes, the mirror starts anew."""
    cursor: str | None = None
    """Phoenix's cursor of the newest span seen; the tail goes on from it, inclusive."""
    cursor_span_id: str | None = None
    """The span at the cursor; another one, or none, there means that spans were deleted."""
    gate: str | None = None
    """Phoenix's `streamingLastUpdatedAt` before the last sweep; None after its restart."""
    moved_at: datetime | None = None
    """When the gate was last found to have moved: what was read before may have changed since."""
    swept_at: datetime | None = None
    """When everything was last swept, whatever the gate said."""
    shards: dict[date, datetime] = {}
    """UTC day on which annotated subjects began, to when their annotations were last read."""


class MirrorChange(Value):
    """The changes that one poll found; the store applies them in one transaction."""

    state: MirrorState
    spans: tuple[Span, ...] = ()
    """New spans, or the new state of known ones."""
    annotations: tuple[Annotation, ...] = ()
    """Added and edited annotations."""
    removed_annotations: tuple[AnnotationKey, ...] = ()
    removed_span_ids: tuple[str, ...] = ()
    new_span_count: int = 0
    """Spans that arrived since the last poll, of whatever kind, with or without feedback."""
    complete: bool = True
    """False when more is waiting, as in a long back-fill: apply this change and poll again at once."""


class Mirror(Protocol):
    """The mirror of one target, as a poll reads it (the store implements it)."""

    def read_state(self) -> MirrorState: ...

    def read_annotations(self, level: Level, subject_ids: Collection[str]) -> list[Annotation]:
        """Return the annotations of these subjects."""
        ...

    def find_annotated_ids(self, level: Level, start: datetime | None, end: datetime | None) -> set[str]:
        """Return the subjects with annotations; for spans, those that began in [start, end)."""
        ...

    def find_known_trace_ids(self, trace_ids: Collection[str]) -> set[str]:
        """Return those of `trace_ids` of which the mirror holds spans."""
        ...

    def find_trace_ids(self) -> set[str]:
        """Return every trace of which the mirror holds spans."""
        ...

    def read_traces(self, trace_ids: Collection[str]) -> list[Span]:
        """Return the spans of these traces."""
        ...


def compare_annotations(
    before: Iterable[Annotation], now: Iterable[Annotation]
) -> tuple[list[Annotation], list[AnnotationKey]]:
    """Return the annotations added or edited since `before`, and the keys of those that are gone."""
    known = {annotation.key: annotation for annotation in before}
    current = {annotation.key: annotation for annotation in now}
    changed = [annotation for key, annotation in current.items() if known.get(key) != annotation]
    return changed, [key for key in known if key not in current]


def compare_spans(before: Iterable[Span], now: Iterable[Span]) -> tuple[list[Span], list[str]]:
    """Return the spans that are new or differ from `before`, and the ids of those that are gone."""
    known = {span.span_id: span for span in before}
    current = {span.span_id: span for span in now}
    changed = [span for span_id, span in current.items() if known.get(span_id) != span]
    return changed, [span_id for span_id in known if span_id not in current]
