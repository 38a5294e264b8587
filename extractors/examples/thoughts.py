"""Parts a reasoning model's thoughts from its answer, where a server left both in one text."""

import re

from extractors.examples.types import Message

OPENING = "<think>"
CLOSING = "</think>"
REASONING_KEYS = ("reasoning_content", "reasoning")
"""Names of the field of a chat message that holds thoughts; the first is ours."""
# The chat template opened the block, so that the text shows only where it ends.
_CLOSED_ONLY = re.compile(rf"{CLOSING}[ \t]*(?:\r?\n|\Z)")


def split_thoughts(text: str) -> tuple[str | None, str]:
    """Return the thoughts at the beginning of `text` (None without any), and the answer after them.

    Three forms are known: a block `<think>…</think>`; its end alone, where the template opened the
    block; its beginning alone, where the answer was cut off within the thoughts: then the answer is
    empty. Tags in the midst of a text belong to the text.
    """
    begun = text.lstrip()
    if begun.startswith(OPENING):
        thoughts, _, answer = begun.removeprefix(OPENING).partition(CLOSING)
    elif OPENING not in text and text.count(CLOSING) == 1 and _CLOSED_ONLY.search(text):
        thoughts, _, answer = text.partition(CLOSING)
    else:
        return None, text
    return thoughts.strip() or None, answer.lstrip()


def get_answer(message: Message) -> str:
    """Return the text of the assistant's `message` without thoughts that stand in it."""
    return split_thoughts(message.content)[1]
