"""What changed in Phoenix since the last look? One poll: cheap when nothing did, and never blind.

    gate ──> tail ──> late spans of traces with feedback ──────────────────> spans
       └──> annotated ids ──┬──> new and gone ones, hot days, some cold days ──> annotations
                            └──> all of them, every `full_sweep_after` ────────> deletions too

The gate moves with every write of spans or annotations but not with every deletion, so what was
deleted (and whatever the rest could miss) is found by the full sweep at the latest. An edited
annotation is found at once if its subject began within `HOT`, or if no more than `COLD_READS`
older subjects are annotated; else as the older days take turns, some at each poll, until all were
read since the gate moved.

Nothing tells which searches (RETRIEVER spans) have annotated documents: those of the newest `SEARCHES`
are read whenever the gate moved, of older ones as their days take turns, and of all by the full sweep.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import TypeVar

from extractors.phoenix.client import PAGE, Arrival, PhoenixClient, Project, Subject, own_spans
from extractors.phoenix.mirror import Mirror, MirrorChange, MirrorState, difference, span_difference
from extractors.phoenix.spans import Annotation, AnnotationKey, Level, Span, SpanFilter, span_of_document
from extractors.values import content_id

LEVELS: tuple[Level, ...] = ("span", "trace", "session")
"""Levels at which Phoenix says who is annotated."""
HOT = timedelta(days=2)
"""Annotations of subjects that began this recently are read whenever the gate moved."""
COLD_READS = 2_000
"""Older subjects whose annotations are read in one poll, those read longest ago first."""
SEARCHES = 2_000
"""Newest searches whose documents' annotations are read in one poll; it takes about a second."""
TAIL_PAGES = 20
"""Pages of new spans (500 each) read in one poll."""
TRACES_A_CALL = 250
SUBJECTS_A_CALL = 500

NEVER = datetime.min.replace(tzinfo=UTC)

_T = TypeVar("_T")


def poll(
    client: PhoenixClient,
    mirror: Mirror,
    *,
    project: str,
    spans: SpanFilter,
    annotation_names: Collection[str],
    used_keys: Collection[str] = (),
    now: datetime,
    full_sweep_after: timedelta = timedelta(minutes=30),
    most_spans: int = 10_000,
) -> MirrorChange:
    """What must change in `mirror` for it to show Phoenix as it is; nothing is written here.

    Annotations on documents are read where `spans` are RETRIEVERs. `used_keys` are keys of metadata that
    are feedback by themselves: spans with one are mirrored though nobody annotated them.

    While the answer is not `complete`, apply it and call again: it holds some `most_spans` spans
    with attributes at most, which bounds its memory. Raises PhoenixUnreachable, PhoenixRefused,
    ProjectNotFound, WrongCondition, PhoenixAnswer; then nothing is lost.
    """
    # The gate comes with the project, before anything else is read: what is written during
    # this poll moves it once more, for the next poll.
    look = _Look(
        client,
        mirror,
        client.project(project),
        spans,
        frozenset(annotation_names),
        frozenset(used_keys),
        most_spans,
    )
    before = mirror.state()
    if before.source not in (None, look.source):
        return look.forget_everything()
    tail = _read_tail(look, before)
    full = tail.lost or _restarted(look.project, before) or _is_due(before, now, full_sweep_after)
    try:
        look.check_traces(mirror.known_trace_ids(tail.trace_ids))
        if full or _may_have_changed(look.project, before):
            tail.state = _sweep(look, tail.state, now, full)
    except _Enough:
        # The tail is read once more, but where the back-fill began must not be forgotten.
        if before.cursor is None:
            return look.change(tail.state, tail.count, complete=False)
        return look.change(before, 0, complete=False)
    return look.change(tail.state, tail.count, complete=not tail.more)


class _Enough(Exception):
    """This poll holds as much as it may; what it has is applied, and the next one goes on."""


@dataclass
class _Look:
    """One look at Phoenix: whom to ask, what to compare with, and what was found so far."""

    client: PhoenixClient
    mirror: Mirror
    project: Project
    filter: SpanFilter
    names: frozenset[str]
    used_keys: frozenset[str]
    most_spans: int
    fetched: int = 0
    checked: set[str] = field(default_factory=set)
    spans: dict[str, Span] = field(default_factory=dict)
    annotations: dict[AnnotationKey, Annotation] = field(default_factory=dict)
    removed_annotations: list[AnnotationKey] = field(default_factory=list)
    removed_span_ids: list[str] = field(default_factory=list)

    @property
    def source(self) -> str:
        followed = [self.project.id, self.filter.model_dump(), sorted(self.names)]
        return content_id([*followed, sorted(self.used_keys)] if self.used_keys else followed)

    def change(self, state: MirrorState, new_span_count: int, *, complete: bool) -> MirrorChange:
        return MirrorChange(
            state=state.model_copy(update={"source": self.source}),
            spans=tuple(self.spans.values()),
            annotations=tuple(self.annotations.values()),
            removed_annotations=tuple(self.removed_annotations),
            removed_span_ids=tuple(self.removed_span_ids),
            new_span_count=new_span_count,
            complete=complete,
        )

    def forget_everything(self) -> MirrorChange:
        """The project, the filter or the names are others now: empty the mirror, then start anew."""
        for level in (*LEVELS, "document"):
            self.remove_annotations(level, self.mirror.annotated_ids(level, None, None))
        self.remove_traces(self.mirror.trace_ids())
        return self.change(MirrorState(), 0, complete=False)

    def check_traces(self, trace_ids: Collection[str]) -> None:
        """Find spans of these traces that are new, differ, or are gone. Raises _Enough."""
        for batch in _batches(sorted(set(trace_ids) - self.checked), TRACES_A_CALL):
            if self.fetched >= self.most_spans:
                raise _Enough
            known = self.mirror.spans_of_traces(batch)
            current = self.client.spans_of_traces(self.project, batch)
            differing = {trace_id for trace_id, _ in _outline(known) ^ _outline(current)}
            changed, removed = span_difference(
                [span for span in known if span.trace_id in differing],
                self._with_attributes([span for span in current if span.trace_id in differing]),
            )
            self.spans.update((span.span_id, span) for span in changed)
            self.removed_span_ids.extend(removed)
            self.checked.update(batch)

    def read_annotations(self, level: Level, subject_ids: Iterable[str]) -> None:
        """Compare the annotations of these subjects with what the mirror holds of them."""
        for batch in _batches(subject_ids, SUBJECTS_A_CALL):
            current = self.client.annotations(self.project, level, batch, self.names)
            changed, removed = difference(self.mirror.annotations_of(level, batch), current)
            self.annotations.update((annotation.key, annotation) for annotation in changed)
            self.removed_annotations.extend(removed)

    def read_documents(self, searches: Iterable[Subject], known: Mapping[str, set[str]]) -> set[str]:
        """The same for documents of these searches; returns those that have annotated documents.

        `known` has the documents with annotations in the mirror, by search. Raises _Enough.
        """
        found: set[str] = set()
        for batch in _batches(searches, SUBJECTS_A_CALL):
            ids = [search.id for search in batch]
            current = self.client.document_annotations(self.project, ids, self.names)
            annotated = {span_of_document(annotation.subject_id) for annotation in current}
            trace_ids = _trace_ids(search for search in batch if search.id in annotated)
            self.check_traces(trace_ids - self.mirror.known_trace_ids(trace_ids))
            subjects = {subject for span_id in ids for subject in known.get(span_id, ())}
            changed, removed = difference(self.mirror.annotations_of("document", subjects), current)
            self.annotations.update((annotation.key, annotation) for annotation in changed)
            self.removed_annotations.extend(removed)
            found |= annotated
        return found

    def remove_annotations(self, level: Level, subject_ids: Collection[str]) -> None:
        for batch in _batches(sorted(subject_ids), SUBJECTS_A_CALL):
            self.removed_annotations.extend(
                annotation.key for annotation in self.mirror.annotations_of(level, batch)
            )

    def remove_traces(self, trace_ids: Collection[str]) -> None:
        for batch in _batches(sorted(trace_ids), TRACES_A_CALL):
            self.removed_span_ids.extend(span.span_id for span in self.mirror.spans_of_traces(batch))

    def _with_attributes(self, spans: list[Span]) -> list[Span]:
        found = self.client.selected(self.project, spans, self.filter)
        self.fetched += sum(span.selected for span in found)
        return found


@dataclass
class _Tail:
    """What arrived after the cursor, and where the next poll goes on."""

    state: MirrorState
    trace_ids: set[str]
    count: int
    lost: bool = False
    """The span at the cursor is gone, so spans behind it may have been missed."""
    more: bool = False


def _read_tail(look: _Look, before: MirrorState) -> _Tail:
    if before.cursor is None:
        newest = look.client.newest(look.project)
        count = look.client.count(look.project) if newest else 0
        return _Tail(_continued(before, newest), set(), count)
    last = Arrival(before.cursor, before.cursor_span_id or "", "")
    arrived: list[Arrival] = []
    for _ in range(TAIL_PAGES):
        page = look.client.arrivals(look.project, last.cursor)
        if not page or page[0].span_id != last.span_id:
            return _Tail(_continued(before, look.client.newest(look.project)), set(), 0, lost=True)
        arrived.extend(page[1:])
        last = page[-1]
        if len(page) < PAGE:
            break
    trace_ids = {span.trace_id for span in arrived}
    return _Tail(_continued(before, last), trace_ids, len(arrived), more=len(page) == PAGE)


def _continued(state: MirrorState, newest: Arrival | None) -> MirrorState:
    cursor, span_id = (newest.cursor, newest.span_id) if newest else (None, None)
    return state.model_copy(update={"cursor": cursor, "cursor_span_id": span_id})


def _restarted(project: Project, before: MirrorState) -> bool:
    return project.gate is None and before.gate is not None


def _is_due(before: MirrorState, now: datetime, full_sweep_after: timedelta) -> bool:
    return before.swept_at is not None and now - before.swept_at >= full_sweep_after


def _has_moved(project: Project, before: MirrorState) -> bool:
    """Whether anything was written since the last sweep, as far as the gate tells."""
    return before.swept_at is None or project.gate is None or project.gate != before.gate


def _may_have_changed(project: Project, before: MirrorState) -> bool:
    """Whether there may be feedback that the mirror lacks: also on days that wait for their turn."""
    waits = before.moved_at is not None and any(at < before.moved_at for at in before.shards.values())
    return waits or _has_moved(project, before)


def _sweep(look: _Look, state: MirrorState, now: datetime, full: bool) -> MirrorState:
    """Find out who is annotated and read what may have changed of it; of everything if `full`.

    Returns the state after it. Raises _Enough.
    """
    if look.filter.condition:
        look.client.check_condition(look.project, look.filter.condition)
    subjects = {
        level: {
            subject.id: subject for subject in look.client.annotated(look.project, level, look.names, now)
        }
        for level in LEVELS
    }
    searches = _searches(look, now)
    counts = Counter(subject.day for current in subjects.values() for subject in current.values())
    counts += Counter(search.day for search in searches)
    days = set(counts) if full else days_to_read(counts, state.shards, now)
    for level, current in subjects.items():
        _sweep_level(look, level, current, days)
    everything = full or state.swept_at is None
    documented = _sweep_documents(look, searches, None if everything else days, now)
    used = _trace_ids(_used(look, now))
    if full:
        trace_ids = _trace_ids(subject for current in subjects.values() for subject in current.values())
        trace_ids |= documented | used
        look.check_traces(trace_ids)
        look.remove_traces(look.mirror.trace_ids() - trace_ids)
    else:
        expected = _trace_ids(subjects["session"].values()) | used
        look.check_traces(expected - look.mirror.known_trace_ids(expected))
    return state.model_copy(
        update={
            "gate": look.project.gate,
            "moved_at": now if _has_moved(look.project, state) else state.moved_at,
            "swept_at": now if full or state.swept_at is None else state.swept_at,
            "shards": {day: now if day in days else state.shards.get(day, now) for day in counts},
        }
    )


def _sweep_level(look: _Look, level: Level, current: Mapping[str, Subject], days: set[date]) -> None:
    known = look.mirror.annotated_ids(level, None, None)
    look.remove_annotations(level, known - current.keys())
    # Traces first: an annotation in the mirror has its spans there.
    new = (subject for subject in current.values() if subject.id not in known)
    for batch in _batches(new, SUBJECTS_A_CALL):
        look.check_traces(_trace_ids(batch))
        look.read_annotations(level, [subject.id for subject in batch])
    again = (subject.id for subject in current.values() if subject.id in known and subject.day in days)
    look.read_annotations(level, again)


def _searches(look: _Look, now: datetime) -> list[Subject]:
    """The target's searches, oldest first; none where its spans are none."""
    if look.filter.kind.upper() != "RETRIEVER" or not look.names:
        return []
    return list(look.client.spans_that(look.project, own_spans(look.filter), now))


def _used(look: _Look, now: datetime) -> list[Subject]:
    """The target's spans whose metadata is feedback by itself."""
    if not look.used_keys:
        return []
    used = " or ".join(f"metadata[{key!r}] is not None" for key in sorted(look.used_keys))
    return list(look.client.spans_that(look.project, f"{own_spans(look.filter)} and ({used})", now))


def _sweep_documents(
    look: _Look, searches: Sequence[Subject], days: Collection[date] | None, now: datetime
) -> set[str]:
    """Read the documents of searches of these days, or of all; returns the traces with annotated ones.

    Of the hot days only the newest SEARCHES are read: there may be far more in them than change.
    """
    known: defaultdict[str, set[str]] = defaultdict(set)
    for subject_id in look.mirror.annotated_ids("document", None, None):
        known[span_of_document(subject_id)].add(subject_id)
    traces = {search.id: search.trace_ids for search in searches}
    gone = {subject_id for span_id in known.keys() - traces.keys() for subject_id in known[span_id]}
    look.remove_annotations("document", gone)
    newest = {search.id for search in searches[-SEARCHES:]}
    oldest_hot = (now - HOT).date()
    read = {
        search.id: search
        for search in searches
        if days is None or search.id in newest or (search.day in days and search.day < oldest_hot)
    }
    annotated = look.read_documents(read.values(), known)
    annotated |= known.keys() & traces.keys() - read.keys()
    return {trace_id for span_id in annotated for trace_id in traces[span_id]}


def days_to_read(counts: Mapping[date, int], read_at: Mapping[date, datetime], now: datetime) -> set[date]:
    """The hot days, and of the others those read longest ago: up to `COLD_READS` subjects, or one day."""
    oldest_hot = (now - HOT).date()
    days = {day for day in counts if day >= oldest_hot}
    reads = 0
    for day in sorted(counts.keys() - days, key=lambda day: (read_at.get(day, NEVER), day)):
        if reads and reads + counts[day] > COLD_READS:
            break
        reads += counts[day]
        days.add(day)
    return days


def _trace_ids(subjects: Iterable[Subject]) -> set[str]:
    return {trace_id for subject in subjects for trace_id in subject.trace_ids}


def _outline(spans: Iterable[Span]) -> set[tuple[str, str]]:
    """Which spans each trace has: spans never change, and only a new one changes a trace's session."""
    return {(span.trace_id, span.span_id) for span in spans}


def _batches(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
