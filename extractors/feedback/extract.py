"""From mirrored spans and annotations to reviewed traffic, with everything dropped counted.

spans ──> calls (each traced once or twice) ──> verdicts ──┬─> reviewed items
                                                           ├─> judged answers, candidates among them
                                                           └─> conversations
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from extractors.examples.output_space import OutputSpace
from extractors.examples.prompt_keys import compute_prompt_key
from extractors.examples.types import JudgedResponse, Outcome, ReviewedItem, ReviewedRetrieval, Trajectory
from extractors.feedback.attribution import FeedbackAttribution, TracedCall
from extractors.feedback.conversations import build_trajectories
from extractors.feedback.judged_answers import list_judged_answers, list_judged_candidates
from extractors.feedback.rules import FeedbackRules, Verdict, has_unreadable_answer, resolve_verdict
from extractors.phoenix.spans import Annotation, Span
from extractors.span_parsing.calls import ModelCall, belongs_to_another, read_call
from extractors.span_parsing.drop_reasons import DropReason, Drops
from extractors.span_parsing.merge import Ancestry, merge_traced_twice
from extractors.values import Value

NEVER_ANSWERED = frozenset(
    {DropReason.INTERNAL, DropReason.OTHER_TARGET, DropReason.FAILED, DropReason.NO_ANSWER}
)
"""Nobody judges these: feedback on what lies above them is about their siblings."""


class Extraction(Value):
    """Everything that the mirror of one target teaches."""

    items: tuple[ReviewedItem, ...] = ()
    """Oldest first."""
    judged: tuple[JudgedResponse, ...] = ()
    """Every answer with a verdict: the agent's, corrections, and candidates that annotations carry."""
    conversations: tuple[Trajectory, ...] = ()
    """Sessions with a verdict on the whole, the rejected ones too; oldest first."""
    retrievals: tuple[ReviewedRetrieval, ...] = ()
    """Searches whose documents were judged; oldest first."""
    dropped: dict[str, int] = {}
    """Calls, searches, conversations and reviewers' answers that cannot be used, by reason in words."""
    dropped_spans: dict[str, tuple[str, ...]] = {}
    """Ids of the newest spans among them, the newest last, by the same reason."""
    replaced: dict[str, int] = {}
    """Pieces of personal data that were replaced, by type."""


def extract(
    spans: Iterable[Span],
    annotations: Iterable[Annotation],
    rules: FeedbackRules,
    output_space: Sequence[str] = (),
    *,
    target: str | None = None,
) -> Extraction:
    """Extract the reviewed calls, judged answers and conversations from `spans` and their annotations.

    The order of spans and annotations does not matter. With a `target` (`tenant/agent`), calls that the
    gateway answered for another one are dropped: a span joins its caller's trace, and so may lie in another
    target's project. With an `output_space` every gold answer is one of its labels, in its spelling. Never
    raises on what spans and annotations hold: what cannot be used is counted in `dropped`.
    """
    spans = sorted({span.span_id: span for span in spans}.values(), key=lambda s: (s.started_at, s.span_id))
    annotations = list(annotations)
    ancestry = Ancestry(spans)
    calls, unreadable, not_read = _read_calls(spans, target)
    calls = merge_traced_twice(_fill_in_sessions(calls, spans), ancestry)
    traced = _list_traced_calls(calls, unreadable, ancestry)
    attribution = FeedbackAttribution(traced, ancestry, annotations, rules)
    reviewed = _review_calls(calls, attribution, rules, OutputSpace(output_space))
    items, repeated = _drop_repetitions(reviewed.items)
    conversations, no_conversation = build_trajectories(
        calls,
        annotations,
        rules,
        unreadable_sessions=frozenset(span.session_id for span in unreadable if span.session_id),
        disapproved=reviewed.disapproved,
    )
    unreadable_answers = _find_unreadable_answers(annotations, rules)
    dropped = Drops.join((not_read, reviewed.dropped, no_conversation, repeated, unreadable_answers))
    return Extraction(
        items=tuple(items),
        judged=tuple(reviewed.judged),
        conversations=tuple(conversations),
        dropped=dropped.counts,
        dropped_spans=dropped.spans,
    )


class _ReadCalls(NamedTuple):
    calls: list[ModelCall]
    unreadable: list[Span]
    """Spans of calls that answered but cannot be read."""
    dropped: Drops


def _read_calls(spans: Sequence[Span], target: str | None) -> _ReadCalls:
    read = _ReadCalls([], [], Drops())
    for span in spans:
        if not span.selected:
            continue
        call = DropReason.OTHER_TARGET if belongs_to_another(span, target) else read_call(span)
        if isinstance(call, ModelCall):
            read.calls.append(call)
            continue
        read.dropped.add(call, [span.span_id])
        if call not in NEVER_ANSWERED:
            read.unreadable.append(span)
    return read


def _fill_in_sessions(calls: Iterable[ModelCall], spans: Iterable[Span]) -> list[ModelCall]:
    """Give calls that name no session the session of their trace."""
    sessions = {span.trace_id: span.session_id for span in spans if span.session_id}
    sessions |= {call.trace_id: call.session_id for call in calls if call.session_id}
    return [
        call.model_copy(update={"session_id": call.session_id or sessions.get(call.trace_id)})
        for call in calls
    ]


class _ReviewedCalls(NamedTuple):
    """The verdicts that feedback gives on calls."""

    items: list[ReviewedItem]
    judged: list[JudgedResponse]
    disapproved: set[tuple[str, ...]]
    """Span ids of the calls whose own answer was rejected or corrected."""
    dropped: Drops


def _review_calls(
    calls: Iterable[ModelCall], attribution: FeedbackAttribution, rules: FeedbackRules, space: OutputSpace
) -> _ReviewedCalls:
    reviewed = _ReviewedCalls([], [], set(), Drops())
    for call in sorted(calls, key=lambda call: (call.started_at, call.span_ids)):
        own, *inherited = feedback = list(attribution.find_feedback(_to_traced_call(call)))
        candidates = list_judged_candidates(call, chain(own, *inherited), rules, space)
        item = _review_call(call, feedback, rules, space)
        if isinstance(item, ReviewedItem):
            reviewed.items.append(item)
            reviewed.judged.extend(list_judged_answers(item))
        elif item is not DropReason.NO_FEEDBACK or not candidates:
            reviewed.dropped.add(item, call.span_ids)
        reviewed.judged.extend(candidates)
        if _is_disapproved(call, own, rules):
            reviewed.disapproved.add(call.span_ids)
    return reviewed


def _list_traced_calls(
    calls: Iterable[ModelCall], unreadable: Iterable[Span], ancestry: Ancestry
) -> list[TracedCall]:
    candidates = [_to_traced_call(call) for call in calls]
    # A span that cannot be read but has a call below it traced that same call.
    traced = (span_id for candidate in candidates for span_id in candidate.span_ids)
    above = {ancestor for span_id in traced for ancestor in ancestry.find_ancestors(span_id)}
    lost = [span for span in unreadable if span.span_id not in above]
    return candidates + [
        TracedCall(
            span_ids=(span.span_id,),
            trace_id=span.trace_id,
            session_id=span.session_id,
            started_at=span.started_at,
        )
        for span in lost
    ]


def _to_traced_call(call: ModelCall) -> TracedCall:
    return TracedCall(
        span_ids=call.span_ids, trace_id=call.trace_id, session_id=call.session_id, started_at=call.started_at
    )


def _review_call(
    call: ModelCall, feedback: Sequence[list[Annotation]], rules: FeedbackRules, space: OutputSpace
) -> ReviewedItem | DropReason:
    """Return the call with the verdict of the nearest feedback that has one, or why there is none."""
    verdicts = (resolve_verdict(annotations, call.response, rules) for annotations in feedback)
    verdict = next((found for found in verdicts if found is not None), DropReason.NO_FEEDBACK)
    if isinstance(verdict, DropReason):
        return verdict
    gold = None if verdict.gold is None else space.to_label(verdict.gold)
    if verdict.gold is not None and gold is None:
        return DropReason.OUTSIDE_OUTPUT_SPACE
    return ReviewedItem(
        prompt=call.prompt,
        tools=call.tools,
        response=call.response,
        outcome=verdict.outcome,
        gold=gold,
        source_span_ids=call.span_ids,
        trace_id=call.trace_id,
        session_id=call.session_id,
        prompt_key=compute_prompt_key(call.prompt),
        started_at=call.started_at,
        verdict_rank=verdict.rank,
        verdict_at=verdict.at,
        answered_by=call.answered_by,
    )


def _is_disapproved(call: ModelCall, annotations: Iterable[Annotation], rules: FeedbackRules) -> bool:
    """Return whether people rejected or corrected this very answer, not the conversation around it."""
    verdict = resolve_verdict(annotations, call.response, rules)
    return isinstance(verdict, Verdict) and verdict.outcome != "approved"


def _drop_repetitions(items: Sequence[ReviewedItem]) -> tuple[list[ReviewedItem], Drops]:
    """Keep the newest of exact repetitions within one session (or trace), oldest item first.

    It gets the verdict that counts the most of all of them. The others are dropped.
    """
    # Across sessions they stay: that many sessions share a prompt says that it is a greeting.
    alike: defaultdict[tuple[str, str, Outcome], list[ReviewedItem]] = defaultdict(list)
    for item in items:
        alike[item.session_id or item.trace_id, item.id, item.outcome].append(item)
    newest = []
    for repeated in alike.values():
        decisive = max(repeated, key=lambda item: item.standing)
        verdict = {"verdict_rank": decisive.verdict_rank, "verdict_at": decisive.verdict_at}
        newest.append(repeated[-1].model_copy(update=verdict))
    kept = {item.source_span_ids for item in newest}
    dropped = Drops()
    for item in items:
        if item.source_span_ids not in kept:
            dropped.add(DropReason.REPEATED, item.source_span_ids)
    return sorted(newest, key=lambda item: (item.started_at, item.source_span_ids)), dropped


def _find_unreadable_answers(annotations: Iterable[Annotation], rules: FeedbackRules) -> Drops:
    dropped = Drops()
    for annotation in sorted(annotations, key=lambda annotation: (annotation.updated_at, annotation.key)):
        if has_unreadable_answer(annotation, rules):
            span_ids = [annotation.subject_id] if annotation.level == "span" else []
            dropped.add(DropReason.ANSWER_UNREADABLE, span_ids)
    return dropped
