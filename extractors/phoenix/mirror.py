"""The local mirror of what matters in Phoenix, and the pure difference between two looks at it.

Nothing in Phoenix filters annotations by time, so their state is swept and compared. The
client reads (`phoenix.py`), `poll.py` decides what to look at, the functions here say what
changed, and the store keeps it.
"""

from collections.abc import Collection, Iterable
from datetime import date, datetime
from typing import Protocol

from extractors.phoenix.spans import Annotation, AnnotationKey, Level, Span
from extractors.values import Value


class MirrorState(Value):
    """How far the mirror has read; the zero value means that nothing was read yet."""

    source: str | None = None
    """Content id of what is mirrored: project, span filter, annotation names. When one of them
    changes, the mirror starts anew."""
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
    """What one poll found; the store applies it in one transaction."""

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

    @property
    def is_empty(self) -> bool:
        return not (self.spans or self.annotations or self.removed_annotations or self.removed_span_ids)


class Mirror(Protocol):
    """What a poll asks of the mirror of one target (the store answers)."""

    def state(self) -> MirrorState: ...

    def annotations_of(self, level: Level, subject_ids: Collection[str]) -> list[Annotation]:
        """Annotations of these subjects."""
        ...

    def annotated_ids(self, level: Level, start: datetime | None, end: datetime | None) -> set[str]:
        """Subjects with annotations; for spans, those that began in [start, end)."""
        ...

    def known_trace_ids(self, trace_ids: Collection[str]) -> set[str]:
        """Those of `trace_ids` of which the mirror holds spans."""
        ...

    def trace_ids(self) -> set[str]:
        """Every trace of which the mirror holds spans."""
        ...

    def spans_of_traces(self, trace_ids: Collection[str]) -> list[Span]: ...


def difference(
    before: Iterable[Annotation], now: Iterable[Annotation]
) -> tuple[list[Annotation], list[AnnotationKey]]:
    """Annotations added or edited since `before`, and the keys of those that are gone."""
    known = {annotation.key: annotation for annotation in before}
    current = {annotation.key: annotation for annotation in now}
    changed = [annotation for key, annotation in current.items() if known.get(key) != annotation]
    return changed, [key for key in known if key not in current]


def span_difference(before: Iterable[Span], now: Iterable[Span]) -> tuple[list[Span], list[str]]:
    """Spans that are new or differ from `before`, and the ids of those that are gone."""
    known = {span.span_id: span for span in before}
    current = {span.span_id: span for span in now}
    changed = [span for span_id, span in current.items() if known.get(span_id) != span]
    return changed, [span_id for span_id in known if span_id not in current]
