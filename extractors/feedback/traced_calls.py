"""The calls that spans traced: those that can be read, those that offer choices, and the rest."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from extractors.phoenix.spans import Span
from extractors.span_parsing.calls import ModelCall, read_alternatives, read_call
from extractors.span_parsing.drop_reasons import DropReason, Drops
from extractors.span_parsing.merge import Ancestry
from extractors.span_parsing.ownership import belongs_to_another, find_session
from extractors.values import Value

NEVER_ANSWERED = frozenset(
    {DropReason.INTERNAL, DropReason.OTHER_TARGET, DropReason.FAILED, DropReason.NO_ANSWER}
)
"""Nobody judges these: feedback on what lies above them is about their siblings."""


class TracedCall(Value):
    """One call that feedback from above could be about, readable or not."""

    span_ids: tuple[str, ...]
    trace_id: str
    session_id: str | None
    started_at: datetime


class ReadCalls(NamedTuple):
    """The calls that spans traced, as far as they can be read."""

    calls: list[ModelCall]
    several: list[tuple[ModelCall, ...]]
    """The choices of each call that gave several answers."""
    unreadable: list[TracedCall]
    """Calls that answered but cannot be read as one call."""
    unanswered: list[TracedCall]
    """Calls of which no answer was recorded."""
    dropped: Drops


def read_calls(spans: Sequence[Span], target: str | None) -> ReadCalls:
    """Read the calls of the selected `spans`, which another target's calls are not among."""
    read = ReadCalls([], [], [], [], Drops())
    sessions = {span.trace_id: found for span in spans if (found := find_session(span))}
    for span in spans:
        if not span.selected:
            continue
        call = DropReason.OTHER_TARGET if belongs_to_another(span, target) else read_call(span)
        if isinstance(call, ModelCall):
            read.calls.append(_fill_in_session(call, sessions))
            continue
        if call is DropReason.NO_ANSWER:
            read.unanswered.append(_to_unreadable_call(span, sessions))
        elif call not in NEVER_ANSWERED:
            read.unreadable.append(_to_unreadable_call(span, sessions))
        if call is DropReason.SEVERAL_ANSWERS and (choices := read_alternatives(span)):
            read.several.append(tuple(_fill_in_session(choice, sessions) for choice in choices))
        else:
            read.dropped.add(call, [span.span_id])
    return read


def _fill_in_session(call: ModelCall, sessions: Mapping[str, str]) -> ModelCall:
    """Give a call that names no session the session of its trace."""
    return call.model_copy(update={"session_id": call.session_id or sessions.get(call.trace_id)})


def _to_unreadable_call(span: Span, sessions: Mapping[str, str]) -> TracedCall:
    return TracedCall(
        span_ids=(span.span_id,),
        trace_id=span.trace_id,
        session_id=find_session(span) or sessions.get(span.trace_id),
        started_at=span.started_at,
    )


def find_incomplete_sessions(
    read: ReadCalls, calls: Iterable[ModelCall], ancestry: Ancestry
) -> frozenset[str]:
    """Return the sessions in which an answer was perhaps given that is not among `calls`."""
    unanswered = _drop_outer_spans(read.unanswered, calls, ancestry)
    return frozenset(call.session_id for call in (*read.unreadable, *unanswered) if call.session_id)


def list_traced_calls(
    calls: Sequence[ModelCall], unreadable: Iterable[TracedCall], ancestry: Ancestry
) -> list[TracedCall]:
    """Return all calls that feedback could be about."""
    return [*map(to_traced_call, calls), *_drop_outer_spans(unreadable, calls, ancestry)]


def _drop_outer_spans(
    unreadable: Iterable[TracedCall], calls: Iterable[ModelCall], ancestry: Ancestry
) -> list[TracedCall]:
    """Leave out spans that cannot be read but have a call below them: they traced that same call."""
    traced = (span_id for call in calls for span_id in call.span_ids)
    above = {ancestor for span_id in traced for ancestor in ancestry.find_ancestors(span_id)}
    return [call for call in unreadable if above.isdisjoint(call.span_ids)]


def to_traced_call(call: ModelCall) -> TracedCall:
    """Return the call as feedback finds it."""
    return TracedCall(
        span_ids=call.span_ids, trace_id=call.trace_id, session_id=call.session_id, started_at=call.started_at
    )
