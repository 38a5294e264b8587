"""Preferences: which of two answers people would rather have had, and which answers they liked.

Whatever the feedback looked like (a correction, votes on several answers to one prompt, verdicts
on candidate responses), a pair is an approved answer over a rejected one to the same prompt. Two
conversations that began alike and ended well and badly give one pair, where they part. Each answer is
also a vote by itself.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from math import gcd, lcm
from typing import Any, NamedTuple, TypeVar

from extractors.examples.prompt_keys import is_nearly_equal, to_comparable
from extractors.examples.types import (
    JudgedResponse,
    Message,
    PreferencePair,
    PreferenceSource,
    Trajectory,
    UnpairedPreference,
)
from extractors.values import content_id

Side = TypeVar("Side")
"""What stands on either side of a pair."""
MOST_PAIRS = 4
"""Pairs of one prompt; more would teach that prompt instead of the task."""


class PreferenceDropReason(StrEnum):
    """Why judged answers and conversations became no preference."""

    OVERRULED = "the same answer to the same prompt was judged otherwise later, or by somebody who outranks"
    SAME_ANSWER = "the better and the worse answer differ in nothing, or only in case and white space"
    ENOUGH = f"its prompt has {MOST_PAIRS} preference pairs already"
    REPEATED = "the same answers to the same prompt make a preference pair already"
    NEVER_PARTED = "a conversation that ended badly parts from good ones at no answer to be learned"


def build_preference_pairs(
    judged: Iterable[JudgedResponse], conversations: Iterable[Trajectory] = ()
) -> tuple[list[PreferencePair], Counter[PreferenceDropReason]]:
    """All pairs that judged answers and ended conversations make, oldest first, and what was passed over.

    Every approved answer to a prompt is set against every rejected one in turn, so that none is
    used much more often than another; at most `MOST_PAIRS` a prompt, whatever they come from. What
    people said of an answer comes before what they said of a conversation.
    """
    passed: Counter[PreferenceDropReason] = Counter()
    offers: defaultdict[str, list[_Offers]] = defaultdict(list)
    standing = _standing(judged, passed)
    for asked, answers in _by_prompt(standing).items():
        offers[asked].append(_compared(answers))
    approved = {said: answer.approved for (_, said), answer in standing.items()}
    for asked, (good, bad) in _partings(conversations, approved, passed).items():
        offers[asked].append(_offered(good, bad, _parting))
    pairs = [pair for of_prompt in offers.values() for pair in _taken(of_prompt, passed)]
    return sorted(pairs, key=lambda pair: (pair.started_at, pair.id)), +passed


def build_unpaired_preferences(judged: Iterable[JudgedResponse]) -> list[UnpairedPreference]:
    """A vote for each distinct answer by the verdict that stands, oldest first.

    Answers of preference pairs too, corrections among them: a plan trains pairs or votes, never both,
    and where there are too few pairs, what they consist of counts among the votes.
    """
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
        for answer in _standing(judged, Counter()).values()
    ]


def _standing(
    judged: Iterable[JudgedResponse], passed: Counter[PreferenceDropReason]
) -> dict[tuple[str, str], JudgedResponse]:
    """One verdict for each prompt and answer, by the keys of both, the one that stands; oldest answer first.

    Of annotators of one rank the newest word stands, whichever span it is about.
    """
    standing: dict[tuple[str, str], JudgedResponse] = {}
    for answer in sorted(judged, key=lambda answer: (answer.standing, _age(answer))):
        *_, asked, said = _keys((*answer.prompt, answer.response), answer.tools)
        earlier = standing.get((asked, said))
        if earlier is not None and earlier.approved != answer.approved:
            passed[PreferenceDropReason.OVERRULED] += 1
        standing[asked, said] = answer
    return dict(sorted(standing.items(), key=lambda found: _age(found[1])))


def _age(answer: JudgedResponse) -> tuple[datetime, tuple[str, ...]]:
    return answer.started_at, answer.source_span_ids


def _by_prompt(standing: Mapping[tuple[str, str], JudgedResponse]) -> dict[str, list[JudgedResponse]]:
    grouped: defaultdict[str, list[JudgedResponse]] = defaultdict(list)
    for (asked, _), answer in standing.items():
        grouped[asked].append(answer)
    return grouped


def _keys(messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The key of each beginning, from none of the messages to all: equal where the same was said."""
    key = content_id(list(tools))
    yield key
    for message in messages:
        key = content_id([key, to_comparable(message)])
        yield key


class _Offers(NamedTuple):
    """Pairs that could be made for one prompt, the best ones first."""

    number: int
    pairs: Iterator[PreferencePair]


def _taken(offers: Iterable[_Offers], passed: Counter[PreferenceDropReason]) -> Iterable[PreferencePair]:
    """As many of one prompt's pairs as are wanted."""
    pairs: dict[str, PreferencePair] = {}
    for number, offered in offers:
        for before, pair in enumerate(offered):
            if len(pairs) == MOST_PAIRS:
                passed[PreferenceDropReason.ENOUGH] += number - before
                break
            if is_nearly_equal(pair.chosen, pair.rejected):
                passed[PreferenceDropReason.SAME_ANSWER] += 1
            elif pair.id in pairs:
                passed[PreferenceDropReason.REPEATED] += 1
            else:
                pairs[pair.id] = pair
    return pairs.values()


def _offered(
    better: Sequence[Side], worse: Sequence[Side], paired: Callable[[Side, Side], PreferencePair]
) -> _Offers:
    """Each of the better against each of the worse in turn, so that none has come much more often."""
    some, others = len(better), len(worse)
    pairs = (
        paired(better[turn % some], worse[(turn + shift) % others])
        for shift in range(gcd(some, others))
        for turn in range(lcm(some, others))
    )
    return _Offers(some * others, pairs)


# ---- answers


def _compared(answers: Sequence[JudgedResponse]) -> _Offers:
    """Approved over rejected answers to one prompt, the newest first."""
    approved = [answer for answer in reversed(answers) if answer.approved]
    rejected = [answer for answer in reversed(answers) if not answer.approved]
    return _offered(approved, rejected, _pair)


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


def _preferred_by(better: JudgedResponse, worse: JudgedResponse) -> PreferenceSource:
    if "candidate" in (better.judged, worse.judged):
        return "candidate"
    corrected = better.judged == "correction" and better.source_span_ids == worse.source_span_ids
    return "correction" if corrected else "same prompt"


# ---- conversations


class _Turn(NamedTuple):
    """One answer in a conversation."""

    conversation: Trajectory
    number: int
    """Of the conversation, the oldest first."""
    at: int
    """Its index in the messages."""
    said: str
    """Key of everything up to it, itself included."""


def _partings(
    conversations: Iterable[Trajectory], approved: Mapping[str, bool], passed: Counter[PreferenceDropReason]
) -> dict[str, tuple[list[_Turn], list[_Turn]]]:
    """By prompt, the answers at which conversations that ended well and badly part, the newest first.

    Of conversations that ended alike and gave the same answer, the newest stands for all. An answer
    that was given in one that ended well, too, is not what made another end badly. What people said
    of the answers themselves (`approved`, by key) stands against what the conversations say.
    """
    parted: dict[str, tuple[list[_Turn], list[_Turn]]] = {}
    met: set[int] = set()
    apart: set[int] = set()
    for asked, turns in _together(conversations).items():
        good = [turn for turn in turns if turn.conversation.outcome != "rejected"]
        bad = [turn for turn in turns if turn.conversation.outcome == "rejected"]
        fine = {turn.said for turn in good} | {turn.said for turn in bad if approved.get(turn.said)}
        better = [t for t in good if t.at in t.conversation.learned and approved.get(t.said, True)]
        worse = [turn for turn in bad if turn.said not in fine]
        if good:
            met.update(turn.number for turn in bad)
        if better and worse:
            apart.update(turn.number for turn in worse)
            parted[asked] = _distinct(better), _distinct(worse)
            passed[PreferenceDropReason.REPEATED] += len(better + worse) - sum(map(len, parted[asked]))
    passed[PreferenceDropReason.NEVER_PARTED] += len(met - apart)
    return parted


def _together(conversations: Iterable[Trajectory]) -> dict[str, list[_Turn]]:
    """By prompt, the answers that conversations give to it, the oldest first."""
    together: defaultdict[str, list[_Turn]] = defaultdict(list)
    ordered = sorted(conversations, key=lambda each: (each.started_at, each.id))
    for number, conversation in enumerate(ordered):
        keys = pairwise(_keys(conversation.messages, conversation.tools))
        for at, (asked, said) in enumerate(keys):
            if conversation.messages[at].role == "assistant":
                together[asked].append(_Turn(conversation, number, at, said))
    return together


def _distinct(turns: Iterable[_Turn]) -> list[_Turn]:
    """The newest turn for each answer, the newest first."""
    newest = {turn.said: turn for turn in turns}
    return sorted(newest.values(), key=lambda turn: turn.number, reverse=True)


def _parting(better: _Turn, worse: _Turn) -> PreferencePair:
    good, bad = better.conversation, worse.conversation
    return PreferencePair(
        prompt=good.messages[: better.at],
        chosen=good.messages[better.at],
        rejected=bad.messages[worse.at],
        tools=good.tools,
        preferred_by="session",
        source_span_ids=tuple(dict.fromkeys(_span_ids(better) + _span_ids(worse))),
        session_id=good.session_id,
        prompt_key=good.prompt_keys[_nth_answer(better)],
        started_at=max(good.started_at, bad.started_at),
    )


def _span_ids(turn: _Turn) -> tuple[str, ...]:
    """The spans that traced the answer; where that is not known, those of its conversation."""
    known = turn.conversation.turn_span_ids
    return (known[_nth_answer(turn)] if known else ()) or turn.conversation.source_span_ids


def _nth_answer(turn: _Turn) -> int:
    return sum(message.role == "assistant" for message in turn.conversation.messages[: turn.at])
