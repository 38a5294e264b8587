"""Finds what a chat template leaves out of a conversation, by comparing its text with the messages.

Messages are those that the template gets: dicts, with the arguments of calls as objects. Thoughts may
be left out; every other part must be there, in order. A part may be trimmed, and spelled as plain text,
JSON or Python.

A lost part can still stand in the text by chance: a call of `search` beside "Let me search". So the same
conversation is also rendered in made-up words (`replace_with_marks`), which stand nowhere by chance.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, product
from string import ascii_lowercase
from typing import Any, NamedTuple

from extractors.examples.thoughts import split_thoughts

Chat = dict[str, Any]


class LostPart(NamedTuple):
    """The place of what is missing."""

    message: int
    """Index of the message."""
    call: int | None
    """Index of the call in the message; None where it is the message's text."""


def find_lost_part(messages: Sequence[Chat], text: str) -> LostPart | None:
    """Return the first part of `messages` that `text` lacks or has too early; None if it has all."""
    position = after_content = 0
    for index, message in enumerate(messages):
        if message["role"] != "tool":
            # Some templates write the text of a call's message after the results of the call.
            position = max(position, after_content)
        found = _find_end(_get_answer(message), text, position)
        if found is None:
            return LostPart(index, None)
        if message["role"] == "tool":
            position = found
        else:
            after_content = found
        for number, call in enumerate(message.get("tool_calls", ())):
            found = _find_end_of_call(call["function"], text, position)
            if found is None:
                return LostPart(index, number)
            position = found
    return None


def _get_answer(message: Chat) -> str:
    """Return the text of the message; templates treat thoughts in it like those that stand beside it."""
    content: str = message["content"]
    return split_thoughts(content)[1] if message["role"] == "assistant" else content


def describe_lost_part(messages: Sequence[Chat], lost: LostPart) -> str:
    """Return in words what is lost, without what was said."""
    message = messages[lost.message]
    if lost.call is not None:
        return f"tool calls (here one of {message['tool_calls'][lost.call]['function']['name']})"
    return "tools' results" if message["role"] == "tool" else f"the text of the {message['role']}'s messages"


def _find_end_of_call(function: Mapping[str, Any], text: str, start: int) -> int | None:
    """Return where the call ends in `text`, whatever the order of its parts; None where it lacks one."""
    ends = [_find_end(part, text, start) for part in (function["name"], *_list_parts(function["arguments"]))]
    found = [end for end in ends if end is not None]
    return max(found) if len(found) == len(ends) else None


def _list_parts(arguments: Any) -> Iterator[Any]:
    """Yield the keys and the values of JSON that are themselves neither objects nor lists."""
    waiting = [arguments]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
        else:
            yield value


def _find_end(part: Any, text: str, start: int) -> int | None:
    """Return where the first spelling of `part` in `text` from `start` on ends; None where there is none."""
    ends = [at + len(spelled) for spelled in _spell(part) if (at := text.find(spelled, start)) >= 0]
    if not ends and isinstance(part, str):
        # Some templates escape only the characters that they must.
        mixed = re.compile("".join(map(_build_pattern, part.strip()))).search(text, start)
        return mixed.end() if mixed else None
    return min(ends, default=None)


def _spell(part: Any) -> set[str]:
    """Return the ways to write a value. Of a text, space around it does not count."""
    return _spell_text(part.strip()) if isinstance(part, str) else {json.dumps(part), repr(part)}


def _spell_text(text: str) -> set[str]:
    if text.isascii() and text.isprintable() and not set(text) & set("\"'\\"):
        return {text}
    as_json = (json.dumps(text, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True))
    return {text, *as_json, repr(text)[1:-1]}


def _build_pattern(character: str) -> str:
    """Return a regular expression for the ways to write a character."""
    ways = _spell_text(character) | ({f"\\{character}"} if character in "\"'" else set())
    return f"(?:{'|'.join(map(re.escape, sorted(ways)))})"


def replace_with_marks(messages: Sequence[Chat]) -> list[Chat]:
    """Return the conversation with a made-up word for each text, name and key, and a number for each number.

    Conversations of one shape (roles, calls, types of arguments, what is empty or false) become the same.
    """
    return _Marks().replace_messages(messages)


class _Marks:
    """Words and numbers that a template does not write itself."""

    def __init__(self) -> None:
        self._words = (f"qz{''.join(letters)}zq" for letters in product(ascii_lowercase, repeat=4))
        self._numbers = count(7_194_001)
        self._ids: dict[str, str] = {}

    def replace_messages(self, messages: Sequence[Chat]) -> list[Chat]:
        return [self._replace_message(message) for message in messages]

    def _replace_message(self, message: Chat) -> Chat:
        replaced = {**message, "content": self._replace_value(message["content"])}
        for field in {"reasoning", "reasoning_content"} & message.keys():
            replaced[field] = self._replace_value(message[field])
        if "tool_calls" in message:
            replaced["tool_calls"] = [self._replace_call(call) for call in message["tool_calls"]]
        if "tool_call_id" in message:
            replaced["tool_call_id"] = self._replace_id(message["tool_call_id"])
        if "name" in message:
            # Not the word of the call, which could then be lost unseen.
            replaced["name"] = next(self._words)
        return replaced

    def _replace_call(self, call: Chat) -> Chat:
        arguments = self._replace_value(call["function"]["arguments"])
        return {
            **call,
            "id": None if call["id"] is None else self._replace_id(call["id"]),
            "function": {"name": next(self._words), "arguments": arguments},
        }

    def _replace_id(self, call_id: str) -> str:
        """Replace an id by one of its length: templates may check that."""
        return self._ids.setdefault(call_id, str(len(self._ids)).rjust(len(call_id), "0"))

    def _replace_value(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {next(self._words): self._replace_value(each) for each in value.values()}
        if isinstance(value, list):
            return [self._replace_value(each) for each in value]
        # A template may take what is false for missing.
        if not value or isinstance(value, bool) or (isinstance(value, str) and not value.strip()):
            return value
        if isinstance(value, str):
            return next(self._words)
        return next(self._numbers) if isinstance(value, int) else next(self._numbers) + 0.5
