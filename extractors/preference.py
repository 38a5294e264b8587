"""Preferences: which of two answers people would rather have had, and which answers they liked.

Whatever the feedback looked like (a correction, votes on several answers to one prompt, verdicts
on candidate responses), a pair is an approved answer over a rejected one to the same prompt. Two
conversations that began alike and ended well and badly give one pair, where they part.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum

from extractors.examples import (
    JudgedResponse,
    Message,
    PreferencePair,
    Preferred,
    Trajectory,
    UnpairedPreference,
)
from extractors.text import normalised, said_alike
from extractors.values import content_id

MOST_PAIRS = 4
"""Pairs of one prompt; more would teach that prompt instead of the task."""


class Passed(StrEnum):
    """Why judged answers became no preference."""

    OVERRULED = "the same answer to the same prompt was judged otherwise later, or by somebody who outranks"
    SAME_ANSWER = "the better and the worse answer differ in nothing, or only in case and white space"
    ENOUGH = f"its prompt has {MOST_PAIRS} preference pairs already"
    NO_CONTEXT = "the conversations part where the user speaks, or the agents' prompts differ"


def preference_pairs(
    judged: Iterable[JudgedResponse], conversations: Sequence[Trajectory] = ()
) -> tuple[list[PreferencePair], Counter[Passed]]:
    """All pairs that judged answers and ended conversations make, oldest first, and what was passed over.

    Every approved answer to a prompt is set against every rejected one in turn, so that none is
    used much more often than another; at most `MOST_PAIRS` a prompt.
    """
    passed: Counter[Passed] = Counter()
    pairs: list[PreferencePair] = []
    for answers in _by_prompt(_standing(judged, passed)).values():
        approved = [answer for answer in answers if answer.approved]
        rejected = [answer for answer in answers if not answer.approved]
        pairs += _crossed(approved, rejected, passed)
    pairs += _parted(conversations, passed)
    unique = {pair.id: pair for pair in sorted(pairs, key=lambda pair: (pair.started_at, pair.id))}
    return list(unique.values()), passed


def unpaired_preferences(
    judged: Iterable[JudgedResponse], pairs: Iterable[PreferencePair] = ()
) -> list[UnpairedPreference]:
    """A vote for each distinct answer by the verdict that stands, oldest first.

    Answers whose spans made one of the `pairs` are left to those: a pair says more than two votes.
    """
    paired = {span_id for pair in pairs for span_id in pair.source_span_ids}
    return [
        UnpairedPreference(
            prompt=answer.prompt,
            completion=answer.response,
            tools=answer.tools,
            desirable=answer.approved,
            source_span_ids=answer.source_span_ids,
            session_id=answer.session_id,
            prompt_key=answer.prompt_key,
            started_at=answer.started_at,
        )
        for answer in _standing(judged, Counter())
        if paired.isdisjoint(answer.source_span_ids)
    ]


def _standing(judged: Iterable[JudgedResponse], passed: Counter[Passed]) -> list[JudgedResponse]:
    """One verdict for each prompt and answer, the one that stands; the oldest answer first.

    Of annotators of one rank the newest word stands, whichever span it is about.
    """
    standing: dict[str, JudgedResponse] = {}
    for answer in sorted(judged, key=lambda answer: (answer.standing, _age(answer))):
        said = content_id([_asked(answer), said_alike(answer.response)])
        if said in standing and standing[said].approved != answer.approved:
            passed[Passed.OVERRULED] += 1
        standing[said] = answer
    return sorted(standing.values(), key=_age)


def _age(answer: JudgedResponse) -> tuple[datetime, tuple[str, ...]]:
    return answer.started_at, answer.source_span_ids


def _by_prompt(answers: Iterable[JudgedResponse]) -> dict[str, list[JudgedResponse]]:
    grouped: defaultdict[str, list[JudgedResponse]] = defaultdict(list)
    for answer in answers:
        grouped[_asked(answer)].append(answer)
    return grouped


def _asked(answer: JudgedResponse) -> str:
    """One key for calls that were asked the same, system prompt and tools included."""
    return content_id([[said_alike(message) for message in answer.prompt], list(answer.tools)])


def _crossed(
    approved: Sequence[JudgedResponse], rejected: Sequence[JudgedResponse], passed: Counter[Passed]
) -> list[PreferencePair]:
    """Approved over rejected answers to one prompt, the newest first, each as often as any other."""
    if not approved or not rejected:
        return []
    newest_up, newest_down = approved[::-1], rejected[::-1]
    pairs: list[PreferencePair] = []
    for turn in range(max(len(approved), len(rejected))):
        better, worse = newest_up[turn % len(approved)], newest_down[turn % len(rejected)]
        if nearly_equal(better.response, worse.response):
            passed[Passed.SAME_ANSWER] += 1
        elif len(pairs) == MOST_PAIRS:
            passed[Passed.ENOUGH] += 1
        else:
            pairs.append(_pair(better, worse))
    return pairs


def _pair(better: JudgedResponse, worse: JudgedResponse) -> PreferencePair:
    return PreferencePair(
        prompt=better.prompt,
        chosen=better.response,
        rejected=worse.response,
        tools=better.tools,
        preferred_by=_preferred_by(better, worse),
        source_span_ids=tuple(dict.fromkeys(better.source_span_ids + worse.source_span_ids)),
        session_id=better.session_id,
        prompt_key=better.prompt_key,
        started_at=max(better.started_at, worse.started_at),
    )


def _preferred_by(better: JudgedResponse, worse: JudgedResponse) -> Preferred:
    if "candidate" in (better.judged, worse.judged):
        return "candidate"
    corrected = better.judged == "correction" and better.source_span_ids == worse.source_span_ids
    return "correction" if corrected else "same prompt"


def _parted(conversations: Sequence[Trajectory], passed: Counter[Passed]) -> list[PreferencePair]:
    """The first turns at which conversations of one task part that ended well and badly."""
    openings: defaultdict[str, list[Trajectory]] = defaultdict(list)
    for conversation in conversations:
        opening = next((i for i, m in enumerate(conversation.messages) if m.role == "assistant"), 0)
        begun = [said_alike(message) for message in conversation.messages[:opening]]
        openings[content_id([begun, list(conversation.tools)])].append(conversation)
    pairs = []
    for begun_alike in openings.values():
        good = [conversation for conversation in begun_alike if conversation.outcome != "rejected"]
        bad = [conversation for conversation in begun_alike if conversation.outcome == "rejected"]
        for turn in range(min(MOST_PAIRS, max(len(good), len(bad))) if good and bad else 0):
            pair = _parting(good[turn % len(good)], bad[turn % len(bad)])
            if isinstance(pair, Passed):
                passed[pair] += 1
            else:
                pairs.append(pair)
    return pairs


def _parting(good: Trajectory, bad: Trajectory) -> PreferencePair | Passed:
    """The turn at which they part, as a pair; why there is none where it cannot be one."""
    together = list(zip(good.messages, bad.messages, strict=False))
    at = next((i for i, (g, b) in enumerate(together) if said_alike(g) != said_alike(b)), len(together))
    if at == len(together):
        return Passed.SAME_ANSWER
    better, worse = together[at]
    if at not in good.learned or worse.role != "assistant":
        return Passed.NO_CONTEXT
    if nearly_equal(better, worse):
        return Passed.SAME_ANSWER
    return PreferencePair(
        prompt=good.messages[:at],
        chosen=better,
        rejected=worse,
        tools=good.tools,
        preferred_by="session",
        source_span_ids=tuple(dict.fromkeys(good.source_span_ids + bad.source_span_ids)),
        session_id=good.session_id,
        prompt_key=good.prompt_keys[sum(m.role == "assistant" for m in good.messages[:at])],
        started_at=max(good.started_at, bad.started_at),
    )


def nearly_equal(one: Message, other: Message) -> bool:
    """Whether two answers differ in nothing but case, white space and Unicode form."""
    return _folded(one) == _folded(other)


def _folded(message: Message) -> list[object]:
    return [
        normalised(message.content),
        [[call.name, normalised(call.arguments)] for call in message.tool_calls],
    ]
