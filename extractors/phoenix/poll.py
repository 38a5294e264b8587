"""Finds what changed in Phoenix since the last poll: cheap when nothing did, and never blind.

    gate ──> tail ──> late spans of traces with feedback ──> spans
       └──> sweep (`sweep.py`) ───────────────────────────> spans and annotations

The gate moves with every write of spans or annotations but not with every deletion, so what was
deleted (and whatever the rest could miss) is found by the full sweep at the latest. An edited
annotation is found at once if its subject began within `HOT`, or if no more than `PollRules.cold_reads`
older subjects are annotated; else as the older days take turns, some at each poll, until all were
read since the gate moved.
"""

from datetime import datetime, timedelta
from typing import NamedTuple

from extractors.phoenix.changes import ChangeCollector, PollContext, PollIsFull
from extractors.phoenix.client import PhoenixClient
from extractors.phoenix.mirror import Mirror, MirrorChange, MirrorSource, MirrorState, PollRules
from extractors.phoenix.project import Project
from extractors.phoenix.span_client import PAGE, Arrival, SpanClient
from extractors.phoenix.sweep import Sweep, has_moved

TAIL_PAGES = 20
"""Pages of new spans (500 each) read in one poll."""


def poll(
    client: PhoenixClient,
    mirror: Mirror,
    source: MirrorSource,
    *,
    now: datetime,
    rules: PollRules | None = None,
) -> MirrorChange:
    """Return what must change in `mirror` for it to show Phoenix as it is; nothing is written here.

    While the answer is not `complete`, apply it and call again. Raises PhoenixUnreachable, PhoenixRefused,
    ProjectNotFound, WrongCondition, PhoenixAnswer; then nothing is lost.
    """
    rules = rules or PollRules()
    # The gate comes with the project, before anything else is read: what is written during
    # this poll moves it once more, for the next poll.
    project = client.project(source.project)
    context = PollContext(client, mirror, project, source, rules)
    changes = ChangeCollector(context)
    before = mirror.read_state()
    if before.source not in (None, source.build_id(project.id)):
        # The project, the filter or the names are others now: empty the mirror, then start anew.
        changes.remove_everything()
        return changes.build_change(MirrorState(), 0, complete=False)
    tail = _read_tail(client.spans, project, before)
    state = tail.state
    full = tail.lost or _has_restarted(project, before) or _is_due(before, now, rules.full_sweep_after)
    try:
        changes.check_traces(mirror.find_known_trace_ids(tail.trace_ids))
        if full or _may_have_changed(project, before):
            state = Sweep(context, changes, now).run(tail.state, full)
    except PollIsFull:
        # The tail is read once more, but where the back-fill began must not be forgotten.
        if before.cursor is None:
            return changes.build_change(tail.state, tail.new_spans, complete=False)
        return changes.build_change(before, 0, complete=False)
    return changes.build_change(state, tail.new_spans, complete=not tail.more)


class _Tail(NamedTuple):
    """The spans that arrived after the cursor, and where the next poll goes on."""

    state: MirrorState
    trace_ids: set[str]
    new_spans: int
    lost: bool = False
    """The span at the cursor is gone, so spans behind it may have been missed."""
    more: bool = False


def _read_tail(spans: SpanClient, project: Project, before: MirrorState) -> _Tail:
    if before.cursor is None:
        newest = spans.find_newest(project)
        count = spans.count(project) if newest else 0
        return _Tail(_move_cursor(before, newest), set(), count)
    last = Arrival(before.cursor, before.cursor_span_id or "", "")
    arrived: list[Arrival] = []
    for _ in range(TAIL_PAGES):
        page = spans.list_arrivals(project, last.cursor)
        if not page or page[0].span_id != last.span_id:
            return _Tail(_move_cursor(before, spans.find_newest(project)), set(), 0, lost=True)
        arrived.extend(page[1:])
        last = page[-1]
        if len(page) < PAGE:
            break
    trace_ids = {span.trace_id for span in arrived}
    return _Tail(_move_cursor(before, last), trace_ids, len(arrived), more=len(page) == PAGE)


def _move_cursor(state: MirrorState, newest: Arrival | None) -> MirrorState:
    cursor, span_id = (newest.cursor, newest.span_id) if newest else (None, None)
    return state.model_copy(update={"cursor": cursor, "cursor_span_id": span_id})


def _has_restarted(project: Project, before: MirrorState) -> bool:
    return project.gate is None and before.gate is not None


def _is_due(before: MirrorState, now: datetime, full_sweep_after: timedelta) -> bool:
    return before.swept_at is not None and abs(now - before.swept_at) >= full_sweep_after


def _may_have_changed(project: Project, before: MirrorState) -> bool:
    """Return whether there may be feedback that the mirror lacks: also on days that wait for their turn."""
    waits = before.moved_at is not None and any(at < before.moved_at for at in before.shards.values())
    return waits or has_moved(project, before)
