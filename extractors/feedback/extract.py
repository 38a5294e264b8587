"""From mirrored spans and annotations to reviewed traffic, with everything dropped counted.

spans ──> calls (each traced once or twice) ──> verdicts ──┬─> reviewed items
                                                           ├─> judged answers, with candidates and choices
                                                           └─> conversations
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from extractors.examples.output_space import OutputSpace
from extractors.examples.prompt_keys import compute_prompt_key
from extractors.examples.types import JudgedResponse, Outcome, ReviewedItem, ReviewedRetrieval, Trajectory
from extractors.feedback.attribution import FeedbackAttribution, ScopeFeedback
from extractors.feedback.choices import list_judged_choices
from extractors.feedback.conversations import build_trajectories
from extractors.feedback.copied_votes import drop_copied_votes
from extractors.feedback.judged_answers import list_judged_answers, list_judged_candidates
from extractors.feedback.rules import FeedbackRules, Verdict, has_unreadable_answer, resolve_verdict
from extractors.feedback.traced_calls import (
    find_incomplete_sessions,
    list_traced_calls,
    read_calls,
    to_traced_call,
)
from extractors.feedback.unknown_labels import UnknownLabel, count_unknown_labels
from extractors.phoenix.spans import Annotation, Span, group_by_subject
from extractors.span_parsing.calls import ModelCall
from extractors.span_parsing.drop_reasons import DropReason, Drops
from extractors.span_parsing.merge import Ancestry, merge_traced_twice
from extractors.values import Value


class Extraction(Value):
    """Everything that the mirror of one target teaches."""

    items: tuple[ReviewedItem, ...] = ()
    """Oldest first."""
    judged: tuple[JudgedResponse, ...] = ()
    """Every answer with a verdict: the agent's, corrections, candidates that annotations carry, and choices.

    Choices come from calls that gave several answers.
    """
    conversations: tuple[Trajectory, ...] = ()
    """Sessions with a verdict on the whole, the rejected ones too; oldest first."""
    retrievals: tuple[ReviewedRetrieval, ...] = ()
    """Searches whose documents were judged; oldest first."""
    dropped: dict[str, int] = {}
    """Calls, searches, conversations and reviewers' answers that cannot be used, by reason in words."""
    dropped_spans: dict[str, tuple[str, ...]] = {}
    """Ids of the newest spans among them, the newest last, by the same reason."""
    unknown_labels: tuple[UnknownLabel, ...] = ()
    """Labels under names that count which no rule names, the most frequent first."""
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
    annotations = drop_copied_votes(annotations)
    ancestry = Ancestry(spans)
    read = read_calls(spans, target)
    calls = merge_traced_twice(read.calls, ancestry)
    traced = list_traced_calls(calls, read.unreadable, ancestry)
    attribution = FeedbackAttribution(traced, ancestry, annotations, rules)
    space = OutputSpace(output_space)
    reviewed = _review_calls(calls, attribution, rules, space)
    choices, nothing_chosen = _review_choices(read.several, annotations, rules, space)
    items, repeated = _drop_repetitions(reviewed.items)
    conversations, no_conversation = build_trajectories(
        calls,
        annotations,
        rules,
        incomplete_sessions=find_incomplete_sessions(read, calls, ancestry),
        disapproved=reviewed.disapproved,
    )
    unreadable_answers = _find_unreadable_answers(annotations, rules)
    dropped = Drops.join(
        (read.dropped, nothing_chosen, reviewed.dropped, no_conversation, repeated, unreadable_answers)
    )
    return Extraction(
        items=tuple(items),
        judged=(*reviewed.judged, *choices),
        conversations=tuple(conversations),
        dropped=dropped.counts,
        dropped_spans=dropped.spans,
        unknown_labels=count_unknown_labels(annotations, rules, frozenset({"span", "trace", "session"})),
    )


def _review_choices(
    several: Iterable[tuple[ModelCall, ...]],
    annotations: Iterable[Annotation],
    rules: FeedbackRules,
    space: OutputSpace,
) -> tuple[list[JudgedResponse], Drops]:
    """Return the choices that annotations on their span judge, and count the calls of which none is."""
    annotated = group_by_subject(annotations)
    judged: list[JudgedResponse] = []
    dropped = Drops()
    for choices in several:
        (span_id,) = choices[0].span_ids
        found = list_judged_choices(choices, annotated.get(("span", span_id), []), rules, space)
        if isinstance(found, DropReason):
            dropped.add(found, [span_id])
        else:
            judged += found
    return judged, dropped


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
        feedback = list(attribution.find_feedback(to_traced_call(call)))
        said = chain.from_iterable(scope.annotations for scope in feedback)
        candidates = list_judged_candidates(call, said, rules, space)
        item = _review_call(call, feedback, rules, space)
        if isinstance(item, ReviewedItem):
            reviewed.items.append(item)
            reviewed.judged.extend(list_judged_answers(item))
        elif item is not DropReason.NO_FEEDBACK or not candidates:
            reviewed.dropped.add(item, call.span_ids)
        reviewed.judged.extend(candidates)
        if _is_disapproved(call, feedback, rules):
            reviewed.disapproved.add(call.span_ids)
    return reviewed


def _review_call(
    call: ModelCall, feedback: Iterable[ScopeFeedback], rules: FeedbackRules, space: OutputSpace
) -> ReviewedItem | DropReason:
    """Return the call with the verdict of the nearest feedback that has one, or why there is none."""
    verdict = _find_nearest_verdict(call, feedback, rules) or DropReason.NO_FEEDBACK
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


def _find_nearest_verdict(
    call: ModelCall, feedback: Iterable[ScopeFeedback], rules: FeedbackRules
) -> Verdict | DropReason | None:
    verdicts = (resolve_verdict(scope.annotations, call.response, rules) for scope in feedback)
    return next((found for found in verdicts if found is not None), None)


def _is_disapproved(call: ModelCall, feedback: Iterable[ScopeFeedback], rules: FeedbackRules) -> bool:
    """Return whether people rejected or corrected this answer or its turn, not the conversation around it."""
    narrow = (scope for scope in feedback if scope.is_narrow)
    verdict = _find_nearest_verdict(call, narrow, rules)
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
