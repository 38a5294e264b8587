"""A sample of all the calls of a target, reviewed or not: what its reviewed calls are compared with.

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
from extractors.phoenix.client import PhoenixClient
from extractors.phoenix.project import Project
from extractors.phoenix.span_client import SpanClient, build_condition
from extractors.phoenix.spans import Span, SpanFilter
from extractors.span_parsing.calls import ModelCall, belongs_to_another, find_session, is_internal, read_call
from extractors.span_parsing.drop_reasons import Unreadable
from extractors.span_parsing.merge import Ancestry, merge_traced_twice
from extractors.span_parsing.retriever_spans import Search, merge_searches, read_query
from extractors.values import Value

MOST_IDS = 30_000
"""Ids that are looked at to draw from; of more calls, every so-manieth slice of time."""
BLOCKS = 24
"""Parts of the time of which a slice each is looked at."""
TRACES_A_CALL = 250
TRACES_PER_CALL = 4
"""Traces that are read at most, as a multiple of the calls that are wanted: not all need hold one."""
RETRIEVER = "RETRIEVER"
LONGEST_QUESTION = 2_000
"""Characters of a text that tell what it is about."""


class TrafficCall(Value):
    """One call or search of a target, whichever spans traced it."""

    span_id: str
    """The outermost of its spans."""
    trace_id: str
    session_id: str | None = None
    text: str
    """What the user asked last, or the query, normalised."""
    prompt_key: str
    answered_by: str | None = None
    """The adapter version that answered, as the gateway traced it; None when unknown."""


def sample_traffic(
    client: PhoenixClient,
    project: str,
    spans: SpanFilter,
    *,
    start: datetime,
    end: datetime,
    most: int = 2_000,
    target: str | None = None,
    redaction: Redaction | None = None,
    most_ids: int = MOST_IDS,
) -> tuple[TrafficCall, ...]:
    """At most `most` of the calls that `spans` names and that began in [start, end], both included.

    All of them where there are no more; else of traces drawn by a hash of their ids, so the same while the
    traffic stays. With a `target` (`tenant/agent`), calls that the gateway answered for another one are left
    out. `redaction` takes personal data out. Beyond `most_ids` spans only slices of the time are looked at.
    Raises PhoenixError, RedactionFailed.
    """
    found = client.project(project)
    window = start, end + timedelta(microseconds=1)
    traces = sorted(
        _find_trace_ids(client.spans, found, build_condition(spans), window, most_ids), key=_draw_lot
    )
    calls: list[TrafficCall] = []
    for batch in _split_batches(traces[: TRACES_PER_CALL * most], TRACES_A_CALL):
        light = client.spans.read_traces(found, batch)
        seen = client.spans.select(found, [each for each in light if start <= each.started_at <= end], spans)
        calls += _read_calls([each for each in seen if each.selected], Ancestry(light), target, redaction)
        if len(calls) >= most:
            break
    # By lot, too, or those of the last traces that began late would be missing.
    return tuple(sorted(calls, key=lambda call: (_draw_lot(call.trace_id), _draw_lot(call.span_id)))[:most])


def normalise_question(reviewed: ReviewedItem | ReviewedRetrieval | ModelCall | Search) -> str:
    """What the user asked last, or the query, normalised."""
    if isinstance(reviewed, ReviewedRetrieval | Search):
        return normalise(reviewed.query[:LONGEST_QUESTION])
    said = [message for message in reviewed.prompt if message.role == "user"] or reviewed.prompt
    return normalise(said[-1].content[:LONGEST_QUESTION])


def _find_trace_ids(
    client: SpanClient,
    project: Project,
    condition: str,
    window: tuple[datetime, datetime],
    most_ids: int,
) -> set[str]:
    """Traces of the spans in `window`, or of those in slices of it that all are as likely to be chosen."""
    every = ceil(client.count(project, condition, window) / most_ids)
    slices = [window] if every <= 1 else list(_slice_time(*window, every))
    most = 2 * most_ids // len(slices)
    return {trace_id for each in slices for trace_id in client.find_trace_ids(project, condition, each, most)}


def _slice_time(start: datetime, end: datetime, every: int) -> Iterator[tuple[datetime, datetime]]:
    """One of each `every` slices [start, end), in all parts of the time."""
    width = (end - start) / (BLOCKS * every)
    for block in range(BLOCKS):
        begin = start + width * (block * every + int(_draw_lot(str(block)), 16) % every)
        yield begin, begin + width


def _read_calls(
    spans: Sequence[Span], ancestry: Ancestry, target: str | None, redaction: Redaction | None
) -> Iterator[TrafficCall]:
    """The calls or searches that these spans traced and that can be read."""
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
    """The search that `span` traced, but for what was found; None where it cannot be read."""
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


def _split_batches(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
