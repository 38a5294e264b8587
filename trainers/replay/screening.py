"""Screening of what a base model wrote by itself: repetition, language, length. Pure."""

from collections.abc import Collection

from extractors.cleaning.languages import UNDETERMINED, identify_language, identify_script

LEAST_CHARACTERS = 12
"""Characters of a question; shorter ones ask nothing."""
GRAM = 10
"""Characters of the pieces that are counted to find repetition: it works in every script."""
MOST_REPEATED = 0.35
"""Share of a text's pieces that may have occurred before in it. Of 27 answers that SmolLM2-135M wrote, 24 are
below it: prose comes to 0.2, code and tables to 0.3."""


def find_question_flaw(question: str, known: Collection[str], *, ended: bool) -> str | None:
    """Return why `question` is of no use, in words; None if it is. `known` are those that are there already,
    as `normalise` makes them.
    """
    if not ended:
        return "a question does not end"
    if len(question) < LEAST_CHARACTERS:
        return "a question is too short"
    if is_repetitive(question):
        return "a question repeats itself"
    if normalise(question) in known:
        return "a question was there already"
    if identify_script(question) is None:
        return "a question has no words"
    return None


def find_answer_flaw(question: str, answer: str) -> str | None:
    """Return why `answer` to `question`, or its beginning, is of no use, in words; None if it is."""
    if not answer:
        return "an answer is empty"
    if is_repetitive(answer):
        return "an answer repeats itself"
    if normalise(answer) == normalise(question):
        return "an answer is the question again"
    if not _is_same_language(question, answer):
        return "an answer is in another language than its question"
    return None


def is_repetitive(text: str) -> bool:
    """Return True if too much of `text` has occurred before in it."""
    pieces = [text[start : start + GRAM] for start in range(len(text) - GRAM + 1)]
    return bool(pieces) and 1 - len(set(pieces)) / len(pieces) > MOST_REPEATED


def normalise(text: str) -> str:
    """Return the text in lower case with single spaces, so that the same question is found again."""
    return " ".join(text.lower().split())


def _is_same_language(one: str, other: str) -> bool:
    """Return whether the two texts may be in one language; a text that does not tell may be in any."""
    languages = {identify_language(text)[0] for text in (one, other)} - {UNDETERMINED}
    scripts = {identify_script(text) for text in (one, other)} - {None}
    return len(languages) <= 1 and len(scripts) <= 1
