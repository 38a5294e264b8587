"""Preferences: which of two answers people would rather have had, and which answers they liked.

Whatever the feedback looked like (a correction, votes on several answers to one prompt, verdicts
on candidate responses), a pair is an approved answer over a rejected one to the same prompt. Two
conversations that began alike and ended well and badly give one pair, where they part. Each answer is
also a vote of its own.
"""

from collections import defaultdict
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
from extractors.values import Reasons, content_id

Answer = TypeVar("Answer")
"""Either side of a pair: a judged answer, or a turn of a conversation."""
MOST_PAIRS = 4
"""Pairs of one prompt; more would teach that prompt instead of the task."""


class PreferenceDropReason(StrEnum):
    """Reasons why judged answers and conversations became no preference."""

    OVERRULED = "the same answer to the same prompt was judged otherwise later, or by somebody who outranks"
    SAME_ANSWER = "the better and the worse answer differ in nothing, or only in case and white space"
    ENOUGH = f"its prompt has {MOST_PAIRS} preference pairs already"
    REPEATED = "the same answers to the same prompt make a preference pair already"
    NEVER_PARTED = "a conversation that ended badly parts from good ones at no answer to be learned"


def build_preference_pairs(
    judged: Iterable[JudgedResponse], conversations: Iterable[Trajectory] = ()
) -> tuple[list[PreferencePair], Reasons]:
    """Build all pairs that judged answers and ended conversations make.

    Returns the pairs, oldest first, and a count per reason of what was left out.
    Every approved answer to a prompt is set against every rejected one in turn, so that none is
    used much more often than another; at most `MOST_PAIRS` a prompt, whatever they come from. What
    people said of an answer comes before what they said of a conversation.
    """
    offers: defaultdict[str, list[_Offers]] = defaultdict(list)
    standing, overruled = _find_standing(judged)
    for prompt, answers in _group_by_prompt(standing).items():
        offers[prompt] += [_offer_answers(answers), *_offer_choices(answers)]
    approved = {key: answer.approved for (_, key), answer in standing.items() if _is_vote(answer)}
    partings, not_parted = _find_partings(conversations, approved)
    for prompt, (good, bad) in partings.items():
        offers[prompt].append(_offer_in_turn(good, bad, _pair_turns))
    pairs: list[PreferencePair] = []
    left_out = overruled + not_parted
    for of_prompt in offers.values():
        selected, not_selected = _select_pairs(of_prompt)
        pairs += selected
        left_out += not_selected
    return sorted(pairs, key=lambda pair: (pair.started_at, pair.id)), left_out


def build_unpaired_preferences(judged: Iterable[JudgedResponse]) -> list[UnpairedPreference]:
    """Build a vote for each distinct answer by the verdict that stands, oldest first.

    Answers of preference pairs are votes, too, corrections among them: a plan trains pairs or votes, never
    both, and where there are too few pairs, what they consist of counts among the votes.
    """
    standing, _ = _find_standing(judged)
    return [
        UnpairedPreference(
            prompt=answer.prompt,
            completion=answer.response,
            tools=answer.tools,
            desirable=answer.approved,
            source_span_ids=answer.source_span_ids,
            trace_id=answer.trace_id,
            session_id=answer.session_id,
            prompt_key=answer.prompt_key,
            started_at=answer.started_at,
        )
        for answer in standing.values()
        if _is_vote(answer)
    ]


def _is_vote(answer: JudgedResponse) -> bool:
    """Return whether people said what they think of the answer: they did not where they passed it over."""
    return answer.judged != "passed over"


def _find_standing(
    judged: Iterable[JudgedResponse],
) -> tuple[dict[tuple[str, str], JudgedResponse], Reasons]:
    """Return the verdict that stands for each prompt and answer, by the keys of both, oldest answer first.

    Of annotators of one rank the newest word stands, whichever span it is about. The others are counted.
    """
    standing: dict[tuple[str, str], JudgedResponse] = {}
    overruled = Reasons()
    for answer in sorted(judged, key=lambda answer: (answer.standing, _age(answer))):
        *_, prompt_key, answer_key = _iterate_prefix_keys((*answer.prompt, answer.response), answer.tools)
        earlier = standing.get((prompt_key, answer_key))
        if earlier is not None and earlier.approved != answer.approved:
            overruled[PreferenceDropReason.OVERRULED] += 1
        standing[prompt_key, answer_key] = answer
    return dict(sorted(standing.items(), key=lambda found: _age(found[1]))), overruled


def _age(answer: JudgedResponse) -> tuple[datetime, tuple[str, ...]]:
    return answer.started_at, answer.source_span_ids


def _group_by_prompt(standing: Mapping[tuple[str, str], JudgedResponse]) -> dict[str, list[JudgedResponse]]:
    grouped: defaultdict[str, list[JudgedResponse]] = defaultdict(list)
    for (prompt_key, _), answer in standing.items():
        grouped[prompt_key].append(answer)
    return grouped


def _iterate_prefix_keys(messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the key of each beginning, from none of the messages to all: equal where the same was said."""
    key = content_id(list(tools))
    yield key
    for message in messages:
        key = content_id([key, to_comparable(message)])
        yield key


class _Offers(NamedTuple):
    """Pairs that could be made for one prompt, the best ones first."""

    number: int
    pairs: Iterator[PreferencePair]


def _select_pairs(offers: Iterable[_Offers]) -> tuple[list[PreferencePair], Reasons]:
    """Take at most `MOST_PAIRS` of one prompt's pairs, and count the others by reason."""
    pairs: dict[str, PreferencePair] = {}
    left_out = Reasons()
    for number, offered in offers:
        for before, pair in enumerate(offered):
            if len(pairs) == MOST_PAIRS:
                left_out[PreferenceDropReason.ENOUGH] += number - before
                break
            if is_nearly_equal(pair.chosen, pair.rejected):
                left_out[PreferenceDropReason.SAME_ANSWER] += 1
            elif pair.id in pairs:
                left_out[PreferenceDropReason.REPEATED] += 1
            else:
                pairs[pair.id] = pair
    return list(pairs.values()), left_out


def _offer_in_turn(
    better: Sequence[Answer], worse: Sequence[Answer], build_pair: Callable[[Answer, Answer], PreferencePair]
) -> _Offers:
    """Offer each of the better against each of the worse in turn, so that none comes much more often."""
    some, others = len(better), len(worse)
    pairs = (
        build_pair(better[turn % some], worse[(turn + shift) % others])
        for shift in range(gcd(some, others))
        for turn in range(lcm(some, others))
    )
    return _Offers(some * others, pairs)


# ---- answers


def _offer_answers(answers: Sequence[JudgedResponse]) -> _Offers:
    """Offer approved over rejected answers to one prompt, the newest first."""
    approved = [answer for answer in reversed(answers) if answer.approved]
    rejected = [answer for answer in reversed(answers) if not answer.approved and _is_vote(answer)]
    return _offer_in_turn(approved, rejected, _pair_answers)


def _offer_choices(answers: Sequence[JudgedResponse]) -> Iterator[_Offers]:
    """Offer the approved choice of a call over those of the same call that were passed over."""
    passed_over: defaultdict[tuple[str, ...], list[JudgedResponse]] = defaultdict(list)
    for answer in reversed(answers):
        if not _is_vote(answer):
            passed_over[answer.source_span_ids].append(answer)
    for span_ids, worse in passed_over.items():
        chosen = [each for each in answers if each.approved and each.source_span_ids == span_ids]
        yield _offer_in_turn(chosen, worse, _pair_answers)


def _pair_answers(better: JudgedResponse, worse: JudgedResponse) -> PreferencePair:
    return PreferencePair(
        prompt=better.prompt,
        chosen=better.response,
        rejected=worse.response,
        tools=better.tools,
        preferred_by=_find_source(better, worse),
        source_span_ids=tuple(dict.fromkeys(better.source_span_ids + worse.source_span_ids)),
        trace_id=better.trace_id,
        session_id=better.session_id,
        prompt_key=better.prompt_key,
        started_at=max(better.started_at, worse.started_at),
    )


def _find_source(better: JudgedResponse, worse: JudgedResponse) -> PreferenceSource:
    if "candidate" in (better.judged, worse.judged):
        return "candidate"
    if better.judged == "choice" and better.source_span_ids == worse.source_span_ids:
        return "choice"
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
    key: str
    """Key of everything up to it, itself included."""


Partings = dict[str, tuple[list[_Turn], list[_Turn]]]
"""By prompt, the better and the worse answers at which conversations part, the newest first."""


def _find_partings(
    conversations: Iterable[Trajectory], approved: Mapping[str, bool]
) -> tuple[Partings, Reasons]:
    """Find the answers at which conversations that ended well and badly part.

    Of conversations that ended alike and gave the same answer, the newest stands for all. An answer
    that was given in one that ended well, too, is not what made another end badly. What people said
    of the answers themselves (`approved`, by key) stands against what the conversations say.
    """
    parted: Partings = {}
    left_out = Reasons()
    met: set[int] = set()
    apart: set[int] = set()
    for prompt, turns in _group_turns(conversations).items():
        good = [turn for turn in turns if turn.conversation.outcome != "rejected"]
        bad = [turn for turn in turns if turn.conversation.outcome == "rejected"]
        fine = {turn.key for turn in good} | {turn.key for turn in bad if approved.get(turn.key)}
        better = [t for t in good if t.at in t.conversation.learned and approved.get(t.key, True)]
        worse = [turn for turn in bad if turn.key not in fine]
        if good:
            met.update(turn.number for turn in bad)
        if better and worse:
            apart.update(turn.number for turn in worse)
            parted[prompt] = _keep_newest(better), _keep_newest(worse)
            repeated = len(better + worse) - sum(map(len, parted[prompt]))
            left_out[PreferenceDropReason.REPEATED] += repeated
    left_out[PreferenceDropReason.NEVER_PARTED] += len(met - apart)
    return parted, left_out


def _group_turns(conversations: Iterable[Trajectory]) -> dict[str, list[_Turn]]:
    """Return by prompt the answers that conversations give to it, the oldest first."""
    grouped: defaultdict[str, list[_Turn]] = defaultdict(list)
    ordered = sorted(conversations, key=lambda each: (each.started_at, each.id))
    for number, conversation in enumerate(ordered):
        keys = pairwise(_iterate_prefix_keys(conversation.messages, conversation.tools))
        for at, (prompt_key, answer_key) in enumerate(keys):
            if conversation.messages[at].role == "assistant":
                grouped[prompt_key].append(_Turn(conversation, number, at, answer_key))
    return grouped


def _keep_newest(turns: Iterable[_Turn]) -> list[_Turn]:
    """Keep the newest turn for each answer, the newest first."""
    newest = {turn.key: turn for turn in turns}
    return sorted(newest.values(), key=lambda turn: turn.number, reverse=True)


def _pair_turns(better: _Turn, worse: _Turn) -> PreferencePair:
    good, bad = better.conversation, worse.conversation
    return PreferencePair(
        prompt=good.messages[: better.at],
        chosen=good.messages[better.at],
        rejected=bad.messages[worse.at],
        tools=good.tools,
        preferred_by="session",
        source_span_ids=tuple(dict.fromkeys(_find_span_ids(better) + _find_span_ids(worse))),
        session_id=good.session_id,
        prompt_key=good.prompt_keys[_count_earlier_answers(better)],
        started_at=max(good.started_at, bad.started_at),
    )


def _find_span_ids(turn: _Turn) -> tuple[str, ...]:
    """Return the spans that traced the answer; where that is not known, those of its conversation."""
    known = turn.conversation.turn_span_ids
    return (known[_count_earlier_answers(turn)] if known else ()) or turn.conversation.source_span_ids


def _count_earlier_answers(turn: _Turn) -> int:
    return sum(message.role == "assistant" for message in turn.conversation.messages[: turn.at])
