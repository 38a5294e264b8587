"""The mirror of what matters in Phoenix, per target."""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Table,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from extractors.phoenix.mirror import Mirror, MirrorChange, MirrorState
from extractors.phoenix.spans import Annotation, AnnotationKey, Level, Span, to_subject
from registry.store.database import Database, lock_target, split_into_chunks
from registry.store.tables import mirror_annotations, mirror_spans, mirror_states, targets

_ANNOTATION_KEY = ("level", "subject_id", "name", "identifier")


class TargetMirror(Database):
    """The mirror of one target, as a poll asks it."""

    def __init__(self, engine: Engine, target: str) -> None:
        super().__init__(engine)
        self._target = target

    def read_state(self) -> MirrorState:
        with self._reading() as connection:
            return _load_state(connection, self._target)

    def read_annotations(self, level: Level, subject_ids: Collection[str]) -> list[Annotation]:
        with self._reading() as connection:
            return list(_load_annotations_of(connection, self._target, level, subject_ids))

    def find_annotated_ids(self, level: Level, start: datetime | None, end: datetime | None) -> set[str]:
        found = select(mirror_annotations.c.subject_id).distinct()
        found = found.where(mirror_annotations.c.target == self._target, mirror_annotations.c.level == level)
        if level == "span" and (start or end):
            found = found.join(
                mirror_spans,
                (mirror_spans.c.target == mirror_annotations.c.target)
                & (mirror_spans.c.span_id == mirror_annotations.c.subject_id),
            )
            found = found.where(mirror_spans.c.started_at >= start) if start else found
            found = found.where(mirror_spans.c.started_at < end) if end else found
        with self._reading() as connection:
            return set(connection.scalars(found))

    def find_known_trace_ids(self, trace_ids: Collection[str]) -> set[str]:
        found = select(mirror_spans.c.trace_id).distinct().where(mirror_spans.c.target == self._target)
        with self._reading() as connection:
            return {
                trace_id
                for some in split_into_chunks(list(trace_ids))
                for trace_id in connection.scalars(found.where(mirror_spans.c.trace_id.in_(some)))
            }

    def find_trace_ids(self) -> set[str]:
        found = select(mirror_spans.c.trace_id).distinct().where(mirror_spans.c.target == self._target)
        with self._reading() as connection:
            return set(connection.scalars(found))

    def read_traces(self, trace_ids: Collection[str]) -> list[Span]:
        with self._reading() as connection:
            return list(_load_spans(connection, self._target, mirror_spans.c.trace_id, trace_ids))


class MirrorRecords(Database):
    """The mirrors of all targets, and their polls."""

    def mirror(self, target: str) -> Mirror:
        return TargetMirror(self._engine, target)

    def read_mirror(self, target: str) -> tuple[list[Span], list[Annotation]]:
        """Return all spans by time and all annotations by subject, for extraction."""
        spans = select(mirror_spans.c.span).where(mirror_spans.c.target == target)
        annotations = select(mirror_annotations.c.annotation).where(mirror_annotations.c.target == target)
        by_key = [mirror_annotations.c[name] for name in _ANNOTATION_KEY]
        with self._reading() as connection:
            return (
                _parse_spans(
                    connection.scalars(
                        spans.order_by(mirror_spans.c.started_at, mirror_spans.c.span_id)
                    ).all()
                ),
                _parse_annotations(connection.scalars(annotations.order_by(*by_key)).all()),
            )

    def read_mirrored_spans(self, target: str, span_ids: Collection[str]) -> list[Span]:
        """Return those of these spans that the mirror holds."""
        with self._reading() as connection:
            return list(_load_spans(connection, target, mirror_spans.c.span_id, span_ids))

    def count_spans_since(self, target: str, at: datetime) -> int:
        """Count the mirrored spans that began after `at`."""
        mine = (mirror_spans.c.target == target, mirror_spans.c.started_at > at)
        with self._reading() as connection:
            return connection.scalar(select(func.count()).select_from(mirror_spans).where(*mine)) or 0

    def apply_mirror(self, target: str, change: MirrorChange, now: datetime) -> None:
        """Keep what a successful poll found, in one transaction; applied again, it changes nothing.

        Each subject whose feedback or content really changed counts once in `feedback_changes`; a
        search once, however many of its documents were judged, and a trace and its root span as one.
        """
        with self._writing() as connection:
            known = lock_target(connection, target)
            changed = _apply_spans(connection, target, change) | _apply_annotations(
                connection, target, change
            )
            _replace_state(connection, target, change.state)
            connection.execute(
                update(targets)
                .where(targets.c.target == target)
                .values(
                    feedback_changes=known.feedback_changes + len(changed),
                    last_poll_at=now,
                    last_poll_error=None,
                )
            )

    def record_poll(self, target: str, at: datetime, error: str | None) -> None:
        """Record when Phoenix was polled, and why it did not answer (None: it did)."""
        with self._writing() as connection:
            lock_target(connection, target)
            connection.execute(
                update(targets)
                .where(targets.c.target == target)
                .values(last_poll_at=at, last_poll_error=error)
            )

    def record_poll_problem(self, polled: Sequence[str], at: datetime, error: str) -> None:
        """Record for many targets at once why Phoenix did not answer."""
        with self._writing() as connection:
            for target in polled:
                lock_target(connection, target)
            for some in split_into_chunks(polled):
                connection.execute(
                    update(targets)
                    .where(targets.c.target.in_(some))
                    .values(last_poll_at=at, last_poll_error=error)
                )


Subject = tuple[Level, str]


def _apply_spans(connection: Connection, target: str, change: MirrorChange) -> set[Subject]:
    """Write the spans that differ, remove the named ones; the selected ones among them come back."""
    named = {span.span_id for span in change.spans} | set(change.removed_span_ids)
    known = {s.span_id: s for s in _load_spans(connection, target, mirror_spans.c.span_id, named)}
    new = {span.span_id: span for span in change.spans if known.get(span.span_id) != span}
    removed = {span_id: known[span_id] for span_id in change.removed_span_ids if span_id in known}
    replaced = known.keys() & (new | removed)
    _delete(connection, mirror_spans, target, [{"span_id": span_id} for span_id in replaced])
    for some in split_into_chunks(list(new.values())):
        connection.execute(insert(mirror_spans), [_span_row(target, span) for span in some])
    return {("span", span.span_id) for span in (removed | new).values() if span.selected}


def _apply_annotations(connection: Connection, target: str, change: MirrorChange) -> set[Subject]:
    """Write the annotations that differ, remove the named ones; what they are about comes back."""
    named = [annotation.key for annotation in change.annotations] + list(change.removed_annotations)
    known = {annotation.key: annotation for annotation in _load_annotations_at(connection, target, named)}
    new = {a.key: a for a in change.annotations if known.get(a.key) != a}
    removed = [key for key in change.removed_annotations if key in known]
    replaced = known.keys() & {*new, *removed}
    _delete(connection, mirror_annotations, target, [_key_columns(key) for key in replaced])
    for some in split_into_chunks(list(new.values())):
        connection.execute(insert(mirror_annotations), [_annotation_row(target, a) for a in some])
    subjects: set[Subject] = {to_subject(key) for key in [*new, *removed]}
    return subjects - _find_annotated_roots(connection, target, subjects)


def _find_annotated_roots(connection: Connection, target: str, subjects: set[Subject]) -> set[Subject]:
    """Return the root spans among the subjects whose trace is one, too: feedback on both is given once."""
    traces = {subject_id for level, subject_id in subjects if level == "trace"}
    if not traces:
        return set()
    span_ids = {subject_id for level, subject_id in subjects if level == "span"}
    spans = _load_spans(connection, target, mirror_spans.c.span_id, span_ids)
    return {("span", span.span_id) for span in spans if span.parent_id is None and span.trace_id in traces}


def _span_row(target: str, span: Span) -> dict[str, Any]:
    return {
        "target": target,
        "span_id": span.span_id,
        "trace_id": span.trace_id,
        "started_at": span.started_at,
        "span": span,
    }


def _annotation_row(target: str, annotation: Annotation) -> dict[str, Any]:
    return {"target": target, **_key_columns(annotation.key), "annotation": annotation}


def _key_columns(key: AnnotationKey) -> dict[str, str]:
    return dict(zip(_ANNOTATION_KEY, key, strict=True))


def _load_annotations_at(
    connection: Connection, target: str, keys: Collection[AnnotationKey]
) -> Iterator[Annotation]:
    """Annotations of the subjects that `keys` name, among them those at `keys`."""
    for level in sorted({key[0] for key in keys}):
        yield from _load_annotations_of(
            connection, target, level, {key[1] for key in keys if key[0] == level}
        )


def _load_annotations_of(
    connection: Connection, target: str, level: Level, subject_ids: Collection[str]
) -> Iterator[Annotation]:
    table = mirror_annotations
    found = select(table.c.annotation).where(table.c.target == target, table.c.level == level)
    for some in split_into_chunks(sorted(subject_ids)):
        yield from _parse_annotations(connection.scalars(found.where(table.c.subject_id.in_(some))).all())


def _load_spans(
    connection: Connection, target: str, column: ColumnElement[str], values: Collection[str]
) -> Iterator[Span]:
    found = select(mirror_spans.c.span).where(mirror_spans.c.target == target)
    for some in split_into_chunks(sorted(values)):
        yield from _parse_spans(connection.scalars(found.where(column.in_(some))).all())


def _parse_spans(rows: Sequence[Any]) -> list[Span]:
    return [Span.model_validate(row) for row in rows]


def _parse_annotations(rows: Sequence[Any]) -> list[Annotation]:
    return [Annotation.model_validate(row) for row in rows]


def _load_state(connection: Connection, target: str) -> MirrorState:
    row = connection.scalar(select(mirror_states.c.state).where(mirror_states.c.target == target))
    return MirrorState() if row is None else MirrorState.model_validate(row)


def _replace_state(connection: Connection, target: str, state: MirrorState) -> None:
    connection.execute(delete(mirror_states).where(mirror_states.c.target == target))
    connection.execute(insert(mirror_states).values(target=target, state=state))


def _delete(connection: Connection, table: Table, target: str, keys: Sequence[dict[str, str]]) -> None:
    """Delete the rows at `keys`, each a value for every column of the key but the target."""
    if keys:
        matches = [table.c[name] == bindparam(f"key_{name}") for name in keys[0]]
        rows = [{f"key_{name}": value for name, value in key.items()} for key in keys]
        connection.execute(delete(table).where(table.c.target == target, *matches), rows)
