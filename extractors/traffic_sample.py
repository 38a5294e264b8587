"""A sample of all calls of a target, reviewed or not, to compare its reviewed calls with.

    how many? ──> ids of their traces, of some slices of time if they are many ──> traces drawn by hash
        ──> all spans of these ──> calls, each traced once or twice

A million spans are never read: at most about `MOST_IDS` ids, and the content of a few thousand spans.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from math import ceil

from extractors.cleaning.redaction import Redaction
from extractors.examples.prompt_keys import compute_prompt_key, compute_query_key, normalise
from extractors.examples.types import ReviewedItem, ReviewedRetrieval
from extractors.phoenix.changes import split_batches
from extractors.phoenix.client import PhoenixClient
from extractors.phoenix.project import Project
from extractors.phoenix.span_client import SpanClient, build_condition
from extractors.phoenix.spans import Span, SpanFilter
from extractors.span_parsing.calls import ModelCall, read_call
from extractors.span_parsing.drop_reasons import Unreadable
from extractors.span_parsing.merge import Ancestry, merge_traced_twice
from extractors.span_parsing.ownership import belongs_to_another, find_session, is_internal
from extractors.span_parsing.retriever_spans import Search, merge_searches, read_query
from extractors.values import Value

MOST_IDS = 30_000
"""Ids to draw from. Of more calls only some slices of the time are looked at."""
BLOCKS = 24
"""Parts of the time; one slice of each is looked at."""
TRACES_A_CALL = 250
TRACES_PER_CALL = 4
"""Most traces that are read for each wanted call: not every trace need hold one."""
RETRIEVER = "RETRIEVER"
LONGEST_QUESTION = 2_000
"""Characters of a text that are kept: they tell its topic."""


class TrafficCall(Value):
    """One call or search of a target, whichever spans traced it."""

    span_id: str
    """The outermost of its spans."""
    trace_id: str
    session_id: str | None = None
    text: str
    """The user's last message, or the query, normalised."""
    prompt_key: str
    answered_by: str | None = None
    """The adapter version that answered, as the gateway traced it; None when unknown."""


class TrafficQuery(Value):
    """The calls to draw a sample from."""

    project: str
    spans: SpanFilter
    start: datetime
    end: datetime
    """First and last time at which a call may begin, both included; aware UTC."""
    target: str | None = None
    """Leaves out calls that the gateway answered for another target than this one (`tenant/agent`)."""


def sample_traffic(
    client: PhoenixClient,
    traffic: TrafficQuery,
    *,
    most: int = 2_000,
    redaction: Redaction | None = None,
    most_ids: int = MOST_IDS,
) -> tuple[TrafficCall, ...]:
    """Return at most `most` calls of the traffic, in random but repeatable order.

    They are all calls where there are no more; else those of traces drawn by a hash of their ids, so the same
    while the traffic stays. `redaction` removes personal data. Beyond `most_ids` spans only slices of the
    time are looked at. Raises PhoenixError, RedactionFailed.
    """
    project = client.project(traffic.project)
    condition = build_condition(traffic.spans)
    window = traffic.start, traffic.end + timedelta(microseconds=1)
    traces = sorted(_find_trace_ids(client.spans, project, condition, window, most_ids), key=_draw_lot)
    calls: list[TrafficCall] = []
    for batch in split_batches(traces[: TRACES_PER_CALL * most], TRACES_A_CALL):
        light = client.spans.read_traces(project, batch)
        within = [span for span in light if traffic.start <= span.started_at <= traffic.end]
        selected = [span for span in client.spans.select(project, within, traffic.spans) if span.selected]
        calls += _read_calls(selected, Ancestry(light), traffic.target, redaction)
        if len(calls) >= most:
            break
    # The calls are drawn as well: else the last traces' late ones would be missing.
    return tuple(sorted(calls, key=lambda call: (_draw_lot(call.trace_id), _draw_lot(call.span_id)))[:most])


def normalise_question(reviewed: ReviewedItem | ReviewedRetrieval | ModelCall | Search) -> str:
    """Return the user's last message, or the query, normalised."""
    if isinstance(reviewed, ReviewedRetrieval | Search):
        return normalise(reviewed.query[:LONGEST_QUESTION])
    messages = [message for message in reviewed.prompt if message.role == "user"] or reviewed.prompt
    return normalise(messages[-1].content[:LONGEST_QUESTION])


def _find_trace_ids(
    client: SpanClient,
    project: Project,
    condition: str,
    window: tuple[datetime, datetime],
    most_ids: int,
) -> set[str]:
    """Find traces of the spans in `window`, or in slices of it that are equally likely to be chosen."""
    every = ceil(client.count(project, condition, window) / most_ids)
    slices = [window] if every <= 1 else list(_slice_time(*window, every))
    most = 2 * most_ids // len(slices)
    return {trace_id for each in slices for trace_id in client.find_trace_ids(project, condition, each, most)}


def _slice_time(start: datetime, end: datetime, every: int) -> Iterator[tuple[datetime, datetime]]:
    """Yield one of each `every` slices [start, end), in all parts of the time."""
    width = (end - start) / (BLOCKS * every)
    for block in range(BLOCKS):
        begin = start + width * (block * every + int(_draw_lot(str(block)), 16) % every)
        yield begin, begin + width


def _read_calls(
    spans: Sequence[Span], ancestry: Ancestry, target: str | None, redaction: Redaction | None
) -> Iterator[TrafficCall]:
    """Yield the readable calls or searches that these spans traced."""
    own = [span for span in spans if not belongs_to_another(span, target)]
    read = [read_call(span) for span in own if span.kind != RETRIEVER]
    searches = [_read_search(span) for span in own if span.kind == RETRIEVER]
    calls: list[ModelCall | Search] = [
        *merge_traced_twice((each for each in read if isinstance(each, ModelCall)), ancestry),
        *merge_searches(each for each in searches if each is not None),
    ]
    for each in redaction.apply(calls) if redaction else calls:
        yield TrafficCall(
            span_id=each.span_ids[0],
            trace_id=each.trace_id,
            session_id=each.session_id,
            text=normalise_question(each),
            prompt_key=compute_query_key(each.query)
            if isinstance(each, Search)
            else compute_prompt_key(each.prompt),
            answered_by=each.answered_by if isinstance(each, ModelCall) else None,
        )


def _read_search(span: Span) -> Search | None:
    """Return the search that `span` traced, without its results; None where it cannot be read."""
    if is_internal(span) or span.status == "ERROR":
        return None
    try:
        query = read_query(span.attributes)
        query.encode()
    except (Unreadable, UnicodeEncodeError):
        return None
    if not query:
        return None
    return Search(
        span_ids=(span.span_id,),
        trace_id=span.trace_id,
        session_id=find_session(span),
        started_at=span.started_at,
        query=query,
        found=(),
        used=(),
    )


def _draw_lot(name: str) -> str:
    return sha256(f"traffic {name}".encode()).hexdigest()
