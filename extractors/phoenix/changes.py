"""The differences between Phoenix and the mirror, collected part by part during one poll."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from extractors.phoenix.client import PhoenixClient
from extractors.phoenix.mirror import (
    Mirror,
    MirrorChange,
    MirrorSource,
    MirrorState,
    PollRules,
    compare_annotations,
    compare_spans,
)
from extractors.phoenix.project import Project
from extractors.phoenix.span_client import Subject
from extractors.phoenix.spans import Annotation, AnnotationKey, Level, Span, parse_document_id

LEVELS: tuple[Level, ...] = ("span", "trace", "session")
"""Levels at which Phoenix says who is annotated."""

_T = TypeVar("_T")


class PollIsFull(Exception):
    """This poll holds as much as it may; what it has is applied, and the next one goes on."""


@dataclass(frozen=True)
class PollContext:
    """The two sides that a poll compares, and how."""

    client: PhoenixClient
    mirror: Mirror
    project: Project
    source: MirrorSource
    rules: PollRules


class ChangeCollector:
    """Compares parts of Phoenix with the mirror, and collects what must change in the mirror."""

    def __init__(self, context: PollContext) -> None:
        self._context = context
        self._client = context.client
        self._mirror = context.mirror
        self._project = context.project
        self._names = context.source.annotation_names
        self._rules = context.rules
        self._fetched = 0
        self._checked: set[str] = set()
        self._spans: dict[str, Span] = {}
        self._annotations: dict[AnnotationKey, Annotation] = {}
        self._removed_annotations: list[AnnotationKey] = []
        self._removed_span_ids: list[str] = []

    def build_change(self, state: MirrorState, new_span_count: int, *, complete: bool) -> MirrorChange:
        """Return what was collected so far, with the state that the mirror has after it."""
        source_id = self._context.source.build_id(self._project.id)
        return MirrorChange(
            state=state.model_copy(update={"source": source_id}),
            spans=tuple(self._spans.values()),
            annotations=tuple(self._annotations.values()),
            removed_annotations=tuple(self._removed_annotations),
            removed_span_ids=tuple(self._removed_span_ids),
            new_span_count=new_span_count,
            complete=complete,
        )

    def check_traces(self, trace_ids: Collection[str]) -> None:
        """Find spans of these traces that are new, differ, or are gone. Raises PollIsFull."""
        for batch in split_batches(sorted(set(trace_ids) - self._checked), self._rules.traces_a_call):
            if self._fetched >= self._rules.most_spans:
                raise PollIsFull
            known = self._mirror.read_traces(batch)
            current = self._client.spans.read_traces(self._project, batch)
            differing = {trace_id for trace_id, _ in _outline(known) ^ _outline(current)}
            changed, removed = compare_spans(
                [span for span in known if span.trace_id in differing],
                self._read_attributes([span for span in current if span.trace_id in differing]),
            )
            self._spans.update((span.span_id, span) for span in changed)
            self._removed_span_ids.extend(removed)
            self._checked.update(batch)

    def check_annotations(self, level: Level, subject_ids: Iterable[str]) -> None:
        """Find annotations of these subjects that are new, were edited, or are gone."""
        for batch in split_batches(subject_ids, self._rules.subjects_a_call):
            current = self._client.annotations.read(self._project, level, batch, self._names)
            self._compare_annotations(level, batch, current)

    def check_documents(self, searches: Iterable[Subject], known: Mapping[str, set[str]]) -> set[str]:
        """Find annotations on documents of these searches that are new, were edited, or are gone.

        `known` has the documents with annotations in the mirror, by search. Returns the searches that have
        annotated documents. Raises PollIsFull.
        """
        found: set[str] = set()
        for batch in split_batches(searches, self._rules.subjects_a_call):
            ids = [search.id for search in batch]
            current = self._client.annotations.read_of_documents(self._project, ids, self._names)
            annotated = {parse_document_id(annotation.subject_id) for annotation in current}
            trace_ids = collect_trace_ids(search for search in batch if search.id in annotated)
            self.check_traces(trace_ids - self._mirror.find_known_trace_ids(trace_ids))
            subjects = {subject for span_id in ids for subject in known.get(span_id, ())}
            self._compare_annotations("document", subjects, current)
            found |= annotated
        return found

    def remove_annotations(self, level: Level, subject_ids: Collection[str]) -> None:
        """Remove all annotations of these subjects from the mirror."""
        for batch in split_batches(sorted(subject_ids), self._rules.subjects_a_call):
            self._removed_annotations.extend(
                annotation.key for annotation in self._mirror.read_annotations(level, batch)
            )

    def remove_traces(self, trace_ids: Collection[str]) -> None:
        """Remove all spans of these traces from the mirror."""
        for batch in split_batches(sorted(trace_ids), self._rules.traces_a_call):
            self._removed_span_ids.extend(span.span_id for span in self._mirror.read_traces(batch))

    def remove_everything(self) -> None:
        """Empty the mirror."""
        for level in (*LEVELS, "document"):
            self.remove_annotations(level, self._mirror.find_annotated_ids(level, None, None))
        self.remove_traces(self._mirror.find_trace_ids())

    def _compare_annotations(
        self, level: Level, subject_ids: Collection[str], current: Collection[Annotation]
    ) -> None:
        changed, removed = compare_annotations(self._mirror.read_annotations(level, subject_ids), current)
        self._annotations.update((annotation.key, annotation) for annotation in changed)
        self._removed_annotations.extend(removed)

    def _read_attributes(self, spans: list[Span]) -> list[Span]:
        found = self._client.spans.select(self._project, spans, self._context.source.spans)
        self._fetched += sum(span.selected for span in found)
        return found


def split_batches(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Split `items` into lists of at most `size`."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def collect_trace_ids(subjects: Iterable[Subject]) -> set[str]:
    """Return the traces of all these subjects."""
    return {trace_id for subject in subjects for trace_id in subject.trace_ids}


def _outline(spans: Iterable[Span]) -> set[tuple[str, str]]:
    """Trace and id of each span: spans never change, and only a new one changes a trace's session."""
    return {(span.trace_id, span.span_id) for span in spans}
