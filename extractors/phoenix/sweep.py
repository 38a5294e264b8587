"""One sweep: who is annotated now, and which of their annotations are read again.

    annotated ids ──┬──> new and gone ones, hot days, some cold days ──> annotations
                    └──> all of them, if the sweep is full ────────────> deletions too

Nothing tells which searches (RETRIEVER spans) have annotated documents: those of the newest
`PollRules.newest_searches` are read in each sweep, of older ones as their days take turns, and of all by
the full sweep.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

from extractors.phoenix.changes import LEVELS, ChangeCollector, PollContext, collect_trace_ids, split_batches
from extractors.phoenix.mirror import MirrorState
from extractors.phoenix.project import Project
from extractors.phoenix.span_client import Subject, build_condition
from extractors.phoenix.spans import Level, parse_document_id

HOT = timedelta(days=2)
"""Annotations of subjects that began this recently are read whenever the gate moved."""

NEVER = datetime.min.replace(tzinfo=UTC)


class Sweep:
    """A sweep of one project at one time; what it finds goes to `changes`."""

    def __init__(self, context: PollContext, changes: ChangeCollector, now: datetime) -> None:
        self._client = context.client
        self._mirror = context.mirror
        self._project = context.project
        self._source = context.source
        self._rules = context.rules
        self._changes = changes
        self._now = now

    def run(self, state: MirrorState, full: bool) -> MirrorState:
        """Find out who is annotated and read what may have changed of it; of everything if `full`.

        Returns the state after it. Raises PollIsFull, WrongCondition, PhoenixError.
        """
        if self._source.spans.condition:
            self._client.spans.check_condition(self._project, self._source.spans.condition)
        annotated = {level: self._find_annotated(level) for level in LEVELS}
        searches = self._find_searches()
        counts = Counter(subject.day for subjects in annotated.values() for subject in subjects.values())
        counts += Counter(search.day for search in searches)
        days = set(counts) if full else choose_days(counts, state.shards, self._now, self._rules.cold_reads)
        for level, subjects in annotated.items():
            self._check_level(level, subjects, days)
        everything = full or state.swept_at is None
        documented = self._check_documents(searches, None if everything else days)
        used = collect_trace_ids(self._find_used())
        if full:
            self._check_all_traces(annotated, documented | used)
        else:
            expected = collect_trace_ids(annotated["session"].values()) | used
            self._changes.check_traces(expected - self._mirror.find_known_trace_ids(expected))
        return self._advance(state, full, counts, days)

    def _advance(
        self, state: MirrorState, full: bool, counts: Mapping[date, int], days: Collection[date]
    ) -> MirrorState:
        return state.model_copy(
            update={
                "gate": self._project.gate,
                "moved_at": self._now if has_moved(self._project, state) else state.moved_at,
                "swept_at": self._now if full or state.swept_at is None else state.swept_at,
                "shards": {
                    day: self._now if day in days else state.shards.get(day, self._now) for day in counts
                },
            }
        )

    def _find_annotated(self, level: Level) -> dict[str, Subject]:
        names = self._source.annotation_names
        found = self._client.annotations.find_subjects(self._project, level, names, self._now)
        return {subject.id: subject for subject in found}

    def _find_searches(self) -> list[Subject]:
        """Find the target's searches, oldest first; none where its spans are of another kind."""
        if self._source.spans.kind.upper() != "RETRIEVER" or not self._source.annotation_names:
            return []
        return list(self._client.spans.find(self._project, build_condition(self._source.spans), self._now))

    def _find_used(self) -> list[Subject]:
        """Find the target's spans whose metadata is feedback without an annotation."""
        if not self._source.used_keys:
            return []
        used = " or ".join(f"metadata[{key!r}] is not None" for key in sorted(self._source.used_keys))
        condition = f"{build_condition(self._source.spans)} and ({used})"
        return list(self._client.spans.find(self._project, condition, self._now))

    def _check_level(self, level: Level, current: Mapping[str, Subject], days: Collection[date]) -> None:
        known = self._mirror.find_annotated_ids(level, None, None)
        self._changes.remove_annotations(level, known - current.keys())
        # Traces first: an annotation in the mirror has its spans there.
        new = (subject for subject in current.values() if subject.id not in known)
        for batch in split_batches(new, self._rules.subjects_a_call):
            self._changes.check_traces(collect_trace_ids(batch))
            self._changes.check_annotations(level, [subject.id for subject in batch])
        again = (subject.id for subject in current.values() if subject.id in known and subject.day in days)
        self._changes.check_annotations(level, again)

    def _check_documents(self, searches: Sequence[Subject], days: Collection[date] | None) -> set[str]:
        """Read the documents of searches of these days, or of all; return the traces with annotated ones.

        Of the hot days only the newest searches are read: there may be far more in them than change.
        """
        known: defaultdict[str, set[str]] = defaultdict(set)
        for document_id in self._mirror.find_annotated_ids("document", None, None):
            known[parse_document_id(document_id)].add(document_id)
        traces = {search.id: search.trace_ids for search in searches}
        gone = {document_id for span_id in known.keys() - traces.keys() for document_id in known[span_id]}
        self._changes.remove_annotations("document", gone)
        read = self._choose_searches(searches, days)
        annotated = self._changes.check_documents(read.values(), known)
        annotated |= known.keys() & traces.keys() - read.keys()
        return {trace_id for span_id in annotated for trace_id in traces[span_id]}

    def _choose_searches(
        self, searches: Sequence[Subject], days: Collection[date] | None
    ) -> dict[str, Subject]:
        newest = {search.id for search in searches[-self._rules.newest_searches :]}
        oldest_hot = (self._now - HOT).date()
        return {
            search.id: search
            for search in searches
            if days is None or search.id in newest or (search.day in days and search.day < oldest_hot)
        }

    def _check_all_traces(self, annotated: Mapping[Level, Mapping[str, Subject]], others: set[str]) -> None:
        """Check every trace with feedback, and remove the mirror's other ones."""
        trace_ids = others | collect_trace_ids(
            subject for subjects in annotated.values() for subject in subjects.values()
        )
        self._changes.check_traces(trace_ids)
        self._changes.remove_traces(self._mirror.find_trace_ids() - trace_ids)


def has_moved(project: Project, before: MirrorState) -> bool:
    """Return whether anything was written since the last sweep, as far as the gate tells."""
    return before.swept_at is None or project.gate is None or project.gate != before.gate


def choose_days(
    counts: Mapping[date, int], read_at: Mapping[date, datetime], now: datetime, cold_reads: int
) -> set[date]:
    """Return the days to read: the hot ones, and of the others those read longest ago.

    `counts` has the annotated subjects of each day. Of the others up to `cold_reads` subjects are read, or
    one day.
    """
    oldest_hot = (now - HOT).date()
    days = {day for day in counts if day >= oldest_hot}
    reads = 0
    for day in sorted(counts.keys() - days, key=lambda day: (read_at.get(day, NEVER), day)):
        if reads and reads + counts[day] > cold_reads:
            break
        reads += counts[day]
        days.add(day)
    return days
