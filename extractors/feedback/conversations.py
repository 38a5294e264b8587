"""Conversations: the calls of one session, across traces, with the verdict on the whole."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from extractors.examples.prompt_keys import compute_prompt_key
from extractors.examples.types import Trajectory
from extractors.feedback.exchange import Exchange, join_calls
from extractors.feedback.rules import FeedbackRules, Verdict, resolve_verdict
from extractors.phoenix.spans import Annotation, SubjectKey, group_by_subject
from extractors.span_parsing.calls import ModelCall
from extractors.span_parsing.drop_reasons import DropReason, Drops

MOST_ANSWERS = 500
"""Answers in one conversation; a session with more has a constant for its id, or more text than fits.

Putting the calls together compares their histories, which is work that grows with the square of the calls.
"""


def build_trajectories(
    calls: Iterable[ModelCall],
    annotations: Iterable[Annotation],
    rules: FeedbackRules,
    *,
    incomplete_sessions: Collection[str] = (),
    disapproved: Collection[tuple[str, ...]] = (),
) -> tuple[list[Trajectory], Drops]:
    """Build the conversations with a verdict on the whole, oldest first, and count those that are dropped.

    The verdict is that of the session's annotations, or of its trace's where all of it lies in one.
    The answers that were given in it are learned, but for those of `disapproved` calls (given by their span
    ids); where the session's last answer was corrected, the correction stands in its place.
    `incomplete_sessions` have a call that cannot be read: they are dropped, as are sessions of more than
    MOST_ANSWERS calls.
    """
    annotated = group_by_subject(annotations)
    conversations: list[Trajectory] = []
    dropped = Drops()
    for session_id, turns in _group_by_session(calls).items():
        feedback = annotated.get(("session", session_id)) or _find_trace_feedback(turns, annotated)
        verdict = resolve_verdict(feedback, turns[-1].response, rules)
        if verdict is None:
            continue
        if len(turns) > MOST_ANSWERS:
            dropped.add(DropReason.TOO_LARGE, _list_span_ids(turns))
            continue
        exchange = join_calls(turns)
        if _count_answers(turns, exchange) < rules.min_turns:
            continue
        if isinstance(verdict, DropReason):
            dropped.add(verdict, _list_span_ids(turns))
        elif session_id in incomplete_sessions:
            dropped.add(DropReason.INCOMPLETE, _list_span_ids(turns))
        elif isinstance(exchange, DropReason):
            dropped.add(exchange, _list_span_ids(turns))
        else:
            learned = [at for at, call in exchange.answered.items() if call.span_ids not in disapproved]
            score = _find_score(feedback, rules)
            conversations.append(_build_trajectory(turns, exchange, learned, verdict, score))
    conversations.sort(key=lambda trajectory: (trajectory.started_at, trajectory.id))
    return conversations, dropped


def _group_by_session(calls: Iterable[ModelCall]) -> dict[str, list[ModelCall]]:
    """Return the calls of each session, in order of time."""
    sessions: defaultdict[str, list[ModelCall]] = defaultdict(list)
    for call in sorted(calls, key=lambda call: (call.started_at, call.span_ids)):
        if call.session_id is not None:
            sessions[call.session_id].append(call)
    return sessions


def _count_answers(turns: Sequence[ModelCall], exchange: Exchange | DropReason) -> int:
    """Return how many answers a session has."""
    if isinstance(exchange, DropReason):
        return len(turns)
    return sum(message.role == "assistant" for message in exchange.messages)


def _list_span_ids(turns: Iterable[ModelCall]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(span_id for turn in turns for span_id in turn.span_ids))


def _find_trace_feedback(
    turns: Sequence[ModelCall], annotated: Mapping[SubjectKey, list[Annotation]]
) -> list[Annotation]:
    """Return the annotations of the session's trace; none where it lies in several traces."""
    traces = {turn.trace_id for turn in turns}
    return annotated.get(("trace", turns[0].trace_id), []) if len(traces) == 1 else []


def _find_score(annotations: Iterable[Annotation], rules: FeedbackRules) -> float | None:
    """Return the newest score under a name that counts."""
    scored = [a for a in annotations if a.score is not None and rules.find_rule(a.name) is not None]
    return max(scored, key=lambda a: a.updated_at).score if scored else None


def _build_trajectory(
    turns: Sequence[ModelCall], exchange: Exchange, learned: list[int], verdict: Verdict, score: float | None
) -> Trajectory:
    messages, answered = list(exchange.messages), exchange.answered
    if verdict.outcome == "corrected" and verdict.gold is not None:
        last = max(answered)
        messages[last] = verdict.gold
        learned = sorted({*learned, last})
    answers = [at for at, message in enumerate(messages) if message.role == "assistant"]
    return Trajectory(
        messages=tuple(messages),
        learned=tuple(learned) if verdict.outcome != "rejected" else (),
        tools=turns[-1].tools,
        outcome=verdict.outcome,
        score=score,
        source_span_ids=_list_span_ids(turns),
        session_id=turns[0].session_id,
        trace_ids=tuple(dict.fromkeys(turn.trace_id for turn in turns)),
        prompt_keys=tuple(compute_prompt_key(messages[:at]) for at in answers),
        turn_span_ids=tuple(answered[at].span_ids if at in answered else () for at in answers),
        started_at=turns[-1].started_at,
    )
