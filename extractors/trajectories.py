"""Conversations: the calls of one session, across traces, put together into the messages that were exchanged.

call 1   system  user 1                      ─> answer 1
call 2   system  user 1  answer 1  user 2    ─> answer 2      the agent sends the history again, or
call 2   system  user 2                      ─> answer 2      it does not
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from extractors.calls import Call
from extractors.drops import DropReason
from extractors.examples import Message, Trajectory
from extractors.feedback import FeedbackRules, Verdict, resolve
from extractors.spans import Annotation, Subject, by_subject
from extractors.text import prompt_key, said_alike

Rejects = Callable[[Call], bool]
"""Whether people rejected this one answer."""


def trajectories(
    calls: Iterable[Call],
    annotations: Iterable[Annotation],
    rules: FeedbackRules,
    *,
    unreadable_sessions: frozenset[str] = frozenset(),
    rejects: Rejects = lambda _call: False,
) -> tuple[list[Trajectory], Counter[DropReason]]:
    """The conversations with a verdict on the whole, oldest first, and why others are none.

    The verdict is that of the session's annotations, or of its trace's where all of it lies in one.
    Learned are the answers that were given in it and that nobody rejected; where the session's last
    answer was corrected, the correction stands in its place.
    """
    said = by_subject(annotations)
    found: list[Trajectory] = []
    dropped: Counter[DropReason] = Counter()
    for session_id, turns in _sessions(calls, rules.min_turns).items():
        about = said.get(("session", session_id)) or _about_trace(turns, said)
        verdict = resolve(about, turns[-1].response, rules)
        if verdict is None:
            continue
        if isinstance(verdict, DropReason):
            dropped[verdict] += 1
        elif session_id in unreadable_sessions:
            dropped[DropReason.INCOMPLETE] += 1
        else:
            found.append(_trajectory(turns, verdict, _score(about, rules), rejects))
    found.sort(key=lambda trajectory: (trajectory.started_at, trajectory.id))
    return found, dropped


def _sessions(calls: Iterable[Call], min_turns: int) -> dict[str, list[Call]]:
    """The calls of each session that is long enough, in order of time."""
    sessions: defaultdict[str, list[Call]] = defaultdict(list)
    for call in sorted(calls, key=lambda call: (call.started_at, call.span_ids)):
        if call.session_id is not None:
            sessions[call.session_id].append(call)
    return {session_id: turns for session_id, turns in sessions.items() if len(turns) >= min_turns}


def _about_trace(turns: Sequence[Call], said: Mapping[Subject, list[Annotation]]) -> list[Annotation]:
    traces = {turn.trace_id for turn in turns}
    return said.get(("trace", turns[0].trace_id), []) if len(traces) == 1 else []


def _score(annotations: Iterable[Annotation], rules: FeedbackRules) -> float | None:
    """The newest score under a name that counts."""
    scored = [a for a in annotations if a.score is not None and rules.rule(a.name) is not None]
    return max(scored, key=lambda a: a.updated_at).score if scored else None


def _trajectory(turns: Sequence[Call], verdict: Verdict, score: float | None, rejects: Rejects) -> Trajectory:
    messages, answered = _joined(turns)
    learned = [at for at, turn in answered.items() if not rejects(turn)]
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
        source_span_ids=tuple(dict.fromkeys(span_id for turn in turns for span_id in turn.span_ids)),
        session_id=turns[0].session_id,
        trace_ids=tuple(dict.fromkeys(turn.trace_id for turn in turns)),
        prompt_keys=tuple(prompt_key(messages[:at]) for at in answers),
        started_at=turns[-1].started_at,
    )


def _joined(turns: Sequence[Call]) -> tuple[list[Message], dict[int, Call]]:
    """What was exchanged, and which call gave the answer at which place; a repeated call takes its place."""
    messages = [message for message in turns[0].prompt if message.role == "system"]
    spoken = len(messages)
    answered: dict[int, Call] = {}
    for turn in turns:
        prompt = [message for message in turn.prompt if message.role != "system"]
        known = _known(messages[spoken:], prompt)
        if known is None:
            messages = messages[: spoken + len(prompt)]
            answered = {at: call for at, call in answered.items() if at < len(messages)}
        else:
            messages += prompt[known:]
        answered[len(messages)] = turn
        messages.append(turn.response)
    return messages, answered


def _known(exchanged: Sequence[Message], prompt: Sequence[Message]) -> int | None:
    """How many of the prompt's first messages the exchange ends with; None where the exchange has gone on
    from this very prompt before: the agent asked once more.
    """
    before, asked = [said_alike(m) for m in exchanged], [said_alike(m) for m in prompt]
    if len(asked) < len(before) and before[: len(asked)] == asked:
        return None
    for length in range(min(len(before), len(asked)), 0, -1):
        if before[-length:] == asked[:length]:
            return length
    return 0
