"""Conversations: the calls of one session, across traces, put together into the messages that were exchanged.

call 1   system  user 1                      ─> answer 1
call 2   system  user 1  answer 1  user 2    ─> answer 2      the agent sends the history again, or
call 2   system  user 2                      ─> answer 2      it does not
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from extractors.examples.prompt_keys import compute_prompt_key, to_comparable
from extractors.examples.types import Message, Trajectory
from extractors.feedback.rules import FeedbackRules, Verdict, resolve_verdict
from extractors.phoenix.spans import Annotation, SubjectKey, group_by_subject
from extractors.span_parsing.calls import ModelCall
from extractors.span_parsing.drop_reasons import DropReason, Drops


def build_trajectories(
    calls: Iterable[ModelCall],
    annotations: Iterable[Annotation],
    rules: FeedbackRules,
    *,
    unreadable_sessions: Collection[str] = (),
    disapproved: Collection[tuple[str, ...]] = (),
) -> tuple[list[Trajectory], Drops]:
    """Build the conversations with a verdict on the whole, oldest first, and count those that are dropped.

    The verdict is that of the session's annotations, or of its trace's where all of it lies in one.
    The answers that were given in it are learned, but for those of `disapproved` calls (given by their span
    ids); where the session's last answer was corrected, the correction stands in its place.
    `unreadable_sessions` have a call that cannot be read: they are dropped.
    """
    annotated = group_by_subject(annotations)
    conversations: list[Trajectory] = []
    dropped = Drops()
    for session_id, turns in _group_by_session(calls).items():
        feedback = annotated.get(("session", session_id)) or _find_trace_feedback(turns, annotated)
        verdict = resolve_verdict(feedback, turns[-1].response, rules)
        if verdict is None:
            continue
        exchange = _join_turns(turns)
        if sum(message.role == "assistant" for message in exchange.messages) < rules.min_turns:
            continue
        if isinstance(verdict, DropReason):
            dropped.add(verdict, _list_span_ids(turns))
        elif session_id in unreadable_sessions:
            dropped.add(DropReason.INCOMPLETE, _list_span_ids(turns))
        elif _has_system_change(exchange.answered.values()):
            dropped.add(DropReason.SYSTEM_CHANGED, _list_span_ids(turns))
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


class _Exchange(NamedTuple):
    """All messages of one session, in order."""

    messages: list[Message]
    answered: dict[int, ModelCall]
    """The calls that gave the answers, by index in `messages`."""


def _build_trajectory(
    turns: Sequence[ModelCall], exchange: _Exchange, learned: list[int], verdict: Verdict, score: float | None
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


def _join_turns(turns: Sequence[ModelCall]) -> _Exchange:
    """Return what was exchanged in the session; a call that was made again replaces the first."""
    with_history = _sends_history(turns)
    spoken: list[Message] = []
    answered: dict[int, ModelCall] = {}
    for turn in turns:
        prompt = _drop_system(turn)
        if _asks_again(spoken, prompt, with_history):
            spoken = spoken[: len(prompt)]
            answered = {at: call for at, call in answered.items() if at < len(spoken)}
        else:
            spoken += prompt[_count_known(spoken, prompt) :]
        answered[len(spoken)] = turn
        spoken.append(turn.response)
    system = _select_system(next(iter(answered.values())))
    return _Exchange([*system, *spoken], {at + len(system): call for at, call in answered.items()})


def _sends_history(turns: Sequence[ModelCall]) -> bool:
    """Return whether the agent sends earlier messages along: the user goes on after an earlier answer.

    True also where all prompts are one: that is a question asked again and again, no conversation.
    """
    if all(_to_comparables(_drop_system(turn)) == _to_comparables(_drop_system(turns[0])) for turn in turns):
        return True
    answers = [to_comparable(turn.response) for turn in turns]
    return any(_goes_on(turn.prompt, answers[:number]) for number, turn in enumerate(turns))


def _goes_on(prompt: Sequence[Message], answers: Sequence[list[Any]]) -> bool:
    """Return whether the user speaks after one of the answers."""
    last = max((at for at, message in enumerate(prompt) if message.role == "user"), default=0)
    return any(message.role == "assistant" and to_comparable(message) in answers for message in prompt[:last])


def _asks_again(spoken: Sequence[Message], prompt: Sequence[Message], with_history: bool) -> bool:
    """Return whether the exchange went on from this very prompt before, and the agent asked once more.

    Where prompts hold no history, it is the user who says the same again, unless a tool was to answer.
    """
    if len(prompt) >= len(spoken) or _to_comparables(spoken[: len(prompt)]) != _to_comparables(prompt):
        return False
    return with_history or bool(spoken[-1].tool_calls)


def _count_known(spoken: Sequence[Message], prompt: Sequence[Message]) -> int:
    """Return how many of the prompt's first messages the exchange ends with."""
    before, asked = _to_comparables(spoken), _to_comparables(prompt)
    lengths = range(min(len(before), len(asked)), 0, -1)
    return next((length for length in lengths if before[-length:] == asked[:length]), 0)


def _has_system_change(answered: Collection[ModelCall]) -> bool:
    """Return whether answers were given under different system prompts.

    A system prompt that is not sent again still holds.
    """
    first, *others = (_to_comparables(_select_system(call)) for call in answered)
    return any(other and other != first for other in others)


def _select_system(call: ModelCall) -> list[Message]:
    return [message for message in call.prompt if message.role == "system"]


def _drop_system(call: ModelCall) -> list[Message]:
    return [message for message in call.prompt if message.role != "system"]


def _to_comparables(messages: Iterable[Message]) -> list[list[Any]]:
    return [to_comparable(message) for message in messages]
