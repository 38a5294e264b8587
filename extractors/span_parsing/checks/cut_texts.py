"""Texts that were cut at a limit, by the tracer or by the model's end."""

import re
from collections.abc import Iterator
from typing import Any

from extractors.phoenix.spans import Span
from extractors.span_parsing.drop_reasons import DropReason, Unreadable
from extractors.span_parsing.nested_attributes import get_path, parse_uncut_json

SHORTEST_LIMIT = 128
"""Characters below which nobody sets a limit."""
HELD_ONCE = (
    "gen_ai.system_instructions",
    "gen_ai.tool.definitions",
    "ai.prompt.tools",
    "llm.invocation_parameters",
)
"""Attributes whose JSON may be the only record of what it holds: without it, a call would look whole."""


def breaks_off(text: str) -> bool:
    """Return whether `text` is JSON that ends before it is closed."""
    text = text.strip().removeprefix("```json").lstrip()
    if not re.match(r'\{\s*"|\[\s*[\[{"]', text):
        return False
    open_brackets, in_string, escaped = 0, False, False
    for character in text:
        if in_string:
            escaped, in_string = (
                character == "\\" and not escaped,
                escaped or character != '"',
            )
        elif character == '"':
            in_string = True
        elif character in "[{":
            open_brackets += 1
        elif character in "]}":
            open_brackets -= 1
            if open_brackets == 0:
                return False
    return True


def check_values_whole(span: Span) -> None:
    """Check that no attribute was cut at a length limit. Raises Unreadable (VALUE_CUT).

    The evidence is a text of the greatest length of all that is JSON and breaks off, with another one of
    that length; two that end in the midst of a word, at a length that people set as a limit; or one that
    does, at a power of two; or tools or instructions that are no whole JSON.
    """
    for path in HELD_ONCE:
        parse_uncut_json(get_path(span.attributes, path))
    texts = {text for text in _list_texts(span.attributes) if len(text) >= SHORTEST_LIMIT}
    longest = max(map(len, texts), default=0)
    at_limit = [text for text in texts if len(text) == longest]
    in_words = bool(at_limit) and all(text[-1].isalnum() for text in at_limit)
    if in_words and (_is_power(longest) if len(at_limit) == 1 else _is_round(longest)):
        raise Unreadable(DropReason.VALUE_CUT)
    if len(at_limit) > 1 and any(map(breaks_off, at_limit)):
        raise Unreadable(DropReason.VALUE_CUT)


def _is_power(length: int) -> bool:
    """Return whether `length` is a power of two from 1024 on, or one less."""
    return length >= 1023 and (length & (length - 1) == 0 or length & (length + 1) == 0)


def _is_round(length: int) -> bool:
    """Return whether `length` is a power of two, or one less, or some thousands or five hundreds."""
    return length & (length - 1) == 0 or length & (length + 1) == 0 or length % 500 == 0


def _list_texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _list_texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _list_texts(inner)
