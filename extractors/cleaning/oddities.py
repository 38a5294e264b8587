"""Training examples that look odd beside the others: a person should read these before a model learns them.

Nothing is left out for an oddity; `learnd data audit` shows the odd examples first. What is compared with
the others (lengths, languages, words) is compared within the examples of one kind.
"""

import json
import math
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import takewhile
from statistics import fmean, median

from extractors.cleaning.languages import UNDETERMINED, identify_language, identify_script
from extractors.cleaning.quality import iterate_kinds, message_to_text
from extractors.examples.prompt_keys import normalise
from extractors.examples.types import (
    AnyExample,
    Examples,
    Message,
    PreferencePair,
    SFTExample,
    Trajectory,
    Triplet,
    UnpairedPreference,
)


class Oddity(StrEnum):
    """Reasons to look at an example."""

    SHORT = "its answer is much shorter than the others"
    LONG = "its answer is much longer than the others"
    LANGUAGE = "it is in another language or script than the others"
    PLACEHOLDER = "it holds a placeholder"
    SERIALISED = "a message looks like serialised data"
    ECHO = "its answer repeats what the user said"
    CUT = "a text ends within a word"
    ARGUMENTS = "a tool call's arguments are no JSON object"


ENOUGH_OTHERS = 20
"""Examples of one kind from which on one of them can be unlike the others."""
FAR = 3.5
"""Deviations from the median from which a length is far from the others (Iglewicz and Hoaglin, "How to Detect
and Handle Outliers", 1993), and `TIMES` as long or short at the least."""
TIMES = 3.0
BY_MEDIAN, BY_MEAN = 1.4826, 1.2533
"""A normal distribution's standard deviation over its median, and over its mean, absolute deviation."""
RARE_SHARE = 0.05
"""Share of the examples below which a language or script is unlike the others."""
ENOUGH_LETTERS = 60
"""Letters of a text whose language is compared, and `SCRIPT_LETTERS` where only the script is."""
SCRIPT_LETTERS = 8
CONFIDENT = 0.95
"""Confidence from which on a language counts."""
LEAST_ECHO = 20
"""Characters of a user's message whose repetition is no greeting and no label."""
LEAST_CUT = 60
"""Characters of a text whose end is looked at: shorter ones end as people like."""

_PLACEHOLDERS = re.compile(
    r"(?i:__redacted__|[\[<({]\s*redacted\s*[\])}>]|\blorem ipsum\b|\[object object\])"
    r"|\b(?:TODO|FIXME|TBD)\b"
    r"|\{\{.*?\}\}|\$\{\w+\}|\{%.*?%\}"
    r"|(?<![\w\\{}$])\{[a-z][a-z_]{2,}\}"
    r"|[\[<](?i:your|insert|enter|add)\s[^\]>\n]{2,40}[\]>](?!\()"
)
_NOTHING = frozenset({"none", "null", "undefined", "nan", "n/a"})
_CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
_REPR = re.compile(r"[\[(]*\s*(?:[A-Z]\w*[a-z]\w*\(\s*\w+=|<[\w.]+ object at 0x)|[\[(]*\{\s*'")
_BLOCKS = re.compile(
    r"""\[\s*\{\s*["']type["']\s*:|[\[(]*\s*[A-Z]\w*(?:Block|Part|Message|Content)\(\s*\w+="""
)
_MARKS_OF_CUTS = re.compile(
    r"(?:\[truncated\]|<truncated>|\(truncated\)|…\[\d+\]|\.\.\.\[\w+\])\s*$", re.IGNORECASE
)
_LAST_WORD = re.compile(r"([^\W\d_]{2,})$")
_WORDS = re.compile(r"[^\W\d_]{2,}(?=[^\w-]|$)")


def find_oddities(examples: Examples) -> dict[str, tuple[tuple[Oddity, ...], ...]]:
    """Return what is odd about each example, by kind and in the order of its members."""
    return {kind: tuple(_find_in_kind(members)) for kind, members in iterate_kinds(examples)}


def _find_in_kind(members: Sequence[AnyExample]) -> Iterator[tuple[Oddity, ...]]:
    lengths = _compare_lengths([len(_get_answer_text(example)) for example in members])
    foreign = _find_foreign(members)
    words = sorted({word for example in members for word in _list_whole_words(example)})
    for example, length, is_foreign in zip(members, lengths, foreign, strict=True):
        found = {
            Oddity.SHORT: length is Oddity.SHORT,
            Oddity.LONG: length is Oddity.LONG,
            Oddity.LANGUAGE: is_foreign,
            Oddity.PLACEHOLDER: any(_holds_placeholder(text) for text in _list_texts(example))
            or normalise(_get_answer_text(example)) in _NOTHING,
            Oddity.SERIALISED: any(map(_looks_serialised, _list_messages(example))),
            Oddity.ECHO: _repeats_the_user(example),
            Oddity.CUT: any(_ends_within_a_word(text, words) for text in _list_texts(example)),
            Oddity.ARGUMENTS: any(map(_has_odd_arguments, _list_messages(example))),
        }
        yield tuple(oddity for oddity, is_there in found.items() if is_there)


# ---- the parts of an example


def _list_messages(example: AnyExample) -> tuple[Message, ...]:
    match example:
        case Trajectory():
            return example.messages
        case Triplet():
            return (Message(role="user", content=example.query),)
        case PreferencePair():
            return (*example.prompt, example.chosen, example.rejected)
    return (*example.prompt, example.completion)


def _list_texts(example: AnyExample) -> list[str]:
    """Return what everybody says; of a tool's results nothing, which are whatever the tool returned."""
    documents = [example.positive.text, example.negative.text] if isinstance(example, Triplet) else []
    said = [message.content for message in _list_messages(example) if message.role != "tool"]
    return [text for text in (*said, *documents) if text]


def _list_answers(example: AnyExample) -> list[Message]:
    """Return the messages to learn; of a pair the better one."""
    match example:
        case Trajectory():
            return [example.messages[at] for at in example.learned]
        case Triplet():
            return []
        case PreferencePair():
            return [example.chosen]
    return [example.completion]


def _get_answer_text(example: AnyExample) -> str:
    if isinstance(example, Triplet):
        return example.positive.text
    return "\n".join(message_to_text(message) for message in _list_answers(example))


# ---- compared with the others


def _compare_lengths(lengths: Sequence[int]) -> list[Oddity | None]:
    """Return which of these lengths, in characters, are far from the others, by their logarithms."""
    if len(lengths) < ENOUGH_OTHERS:
        return [None] * len(lengths)
    sizes = [math.log1p(length) for length in lengths]
    middle = median(sizes)
    distances = [abs(size - middle) for size in sizes]
    # Where most lengths are one, the median distance is 0 and the mean one stands in for it.
    scale = BY_MEDIAN * median(distances) or BY_MEAN * fmean(distances)
    least = max(FAR * scale, math.log(TIMES))
    return [
        None if abs(size - middle) < least else Oddity.SHORT if size < middle else Oddity.LONG
        for size in sizes
    ]


def _find_foreign(members: Sequence[AnyExample]) -> list[bool]:
    """Return which examples have a question or an answer in a language or script that few others have."""
    named = [{sign for text in _list_spoken(example) for sign in _name_language(text)} for example in members]
    counts = Counter(sign for signs in named for sign in signs)
    totals = {
        aspect: sum(any(each[0] == aspect for each in signs) for signs in named) for aspect, _ in counts
    }
    rare = {
        sign
        for sign, count in counts.items()
        if totals[sign[0]] >= ENOUGH_OTHERS and count < RARE_SHARE * totals[sign[0]]
    }
    return [bool(signs & rare) for signs in named]


def _list_spoken(example: AnyExample) -> list[str]:
    """Return the user's last message, and the answers."""
    asked = [message.content for message in _list_messages(example) if message.role == "user"][-1:]
    if isinstance(example, Triplet):
        return [*asked, example.positive.text]
    return [*asked, *(message.content for message in _list_answers(example))]


def _name_language(text: str) -> Iterator[tuple[str, str]]:
    prose = _CODE.sub(" ", text)
    letters = sum(map(str.isalpha, prose))
    script = identify_script(prose)
    if script is not None and letters >= SCRIPT_LETTERS:
        yield "script", script
    if letters >= ENOUGH_LETTERS:
        language, confidence = identify_language(prose)
        if language != UNDETERMINED and confidence >= CONFIDENT:
            yield "language", language


def _list_whole_words(example: AnyExample) -> Iterator[str]:
    """Yield the words of all texts, in lower case, but for the last word of each, which may be cut."""
    for text in set(_list_texts(example)):
        yield from (word.casefold() for word in _WORDS.findall(_LAST_WORD.sub("", text)))


def _ends_within_a_word(text: str, words: Sequence[str]) -> bool:
    """Return whether the text says that it was cut, or ends with the mere beginning of a word.

    `words` are the known ones, sorted. What lacks one letter is whole: "order" and "orders" are two words.
    """
    if _MARKS_OF_CUTS.search(text):
        return True
    last = _LAST_WORD.search(text)
    if len(text) < LEAST_CUT or last is None:
        return False
    end = last.group(1).casefold()
    following = (words[at] for at in range(bisect_left(words, end), len(words)))
    longer = takewhile(lambda word: word.startswith(end), following)
    remainders = [len(word) - len(end) for word in longer]
    return bool(remainders) and min(remainders) > 0 and max(remainders) > 1


# ---- of one example


def _holds_placeholder(text: str) -> bool:
    return _PLACEHOLDERS.search(_CODE.sub(" ", text)) is not None


def _looks_serialised(message: Message) -> bool:
    """Return whether a user's message is data, or anybody's a list of blocks that a program wrote as text."""
    text = message.content.strip()
    if message.role == "tool" or not text:
        return False
    if _BLOCKS.match(text):
        return True
    return message.role == "user" and (_REPR.match(text) is not None or _is_json(text))


def _is_json(text: str) -> bool:
    if text[0] not in "{[":
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        # A list of what was cut is no JSON any more.
        return text.startswith(('{"', '[{"', '["'))
    return True


def _repeats_the_user(example: AnyExample) -> bool:
    if isinstance(example, Triplet):
        return normalise(example.query) in {
            normalise(example.positive.text),
            normalise(example.negative.text),
        }
    return any(
        len(asked) >= LEAST_ECHO and normalise(answer.content).startswith(asked)
        for asked, answer in _pair_with_questions(example)
    )


def _pair_with_questions(
    example: SFTExample | UnpairedPreference | PreferencePair | Trajectory,
) -> Iterator[tuple[str, Message]]:
    """Yield each answer to learn with the normalised message of the user before it."""
    messages = _list_messages(example)
    learned = example.learned if isinstance(example, Trajectory) else [len(example.prompt)]
    for at in learned:
        asked = [message.content for message in messages[:at] if message.role == "user"][-1:]
        if asked:
            yield normalise(asked[0]), messages[at]


def _has_odd_arguments(message: Message) -> bool:
    return any(not _are_arguments(call.arguments) for call in message.tool_calls)


def _are_arguments(text: str) -> bool:
    """Return whether these are arguments; a call without any may have an empty text or null."""
    if not text.strip():
        return True
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return parsed is None or isinstance(parsed, dict)
