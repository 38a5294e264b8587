"""Keys that are equal where two prompts, queries or answers are the same to a reader.

Case, white space and Unicode form do not count, nor does a system prompt.
"""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from extractors.examples.types import Message, ToolCall
from extractors.values import content_id


def normalise(text: str) -> str:
    """Return `text` in NFKC, lower case, with single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def compute_prompt_key(prompt: Sequence[Message]) -> str:
    """Return one key for prompts that differ only in system prompt, case, white space or Unicode form.

    Tool calls and results count by content, not by their random ids.
    """
    turns = [message for message in prompt if message.role != "system"] or prompt
    return content_id(
        [
            [
                turn.role,
                normalise(turn.content),
                [[call.name, normalise(call.arguments)] for call in turn.tool_calls],
            ]
            for turn in turns
        ]
    )


def to_comparable(message: Message) -> list[Any]:
    """Return what a message says, to compare messages: equal for one message however a tracer wrote it.

    Ids of tool calls, white space and a model's thoughts do not count, nor does the way in which arguments
    and results were written as JSON. Unlike a prompt's key it is never kept: prompts keep the key they have.
    """
    content = message.content
    if message.role == "tool" and content.lstrip()[:1] in ("{", "["):
        content = canonicalise_json(content)
    return [
        message.role,
        " ".join(content.split()),
        [[call.name, canonicalise_arguments(call)] for call in message.tool_calls],
    ]


def canonicalise_arguments(call: ToolCall) -> str:
    """Return one text for all ways to write the arguments; none and `null` are an empty object."""
    written = canonicalise_json(call.arguments)
    return "{}" if written in ("", "null") else written


def canonicalise_json(text: str) -> str:
    """Return one text for all ways to write a JSON value; `text` without surrounding space if it is no JSON.

    Equal for any order of keys, any white space, escaped and plain characters, and 1.0 and 1.
    """
    try:
        value = json.loads(text, parse_float=_parse_number)
        return json.dumps(value, sort_keys=True, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text.strip()


def _parse_number(written: str) -> float | int:
    number = float(written)
    return int(number) if number.is_integer() else number


def compute_query_key(query: str) -> str:
    """Return one key for queries that differ only in case, white space or Unicode form."""
    return content_id(["query", normalise(query)])


def is_nearly_equal(one: Message, other: Message) -> bool:
    """Return whether two answers differ in nothing but case, white space and Unicode form."""
    return fold(one)[1:] == fold(other)[1:]


def fold(message: Message) -> list[Any]:
    """Return what a message says, as `to_comparable` does, without case and Unicode form."""
    role, content, calls = to_comparable(message)
    return [role, normalise(content), [[name, normalise(arguments)] for name, arguments in calls]]


def compute_prompt_keys(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the normalised prompts of a record with these `fields`, by the field that keeps them."""
    if "messages" in fields:
        messages = fields["messages"]
        answers = [at for at, message in enumerate(messages) if message.role == "assistant"]
        return {"prompt_keys": tuple(compute_prompt_key(messages[:at]) for at in answers)}
    if "prompt" in fields:
        return {"prompt_key": compute_prompt_key(fields["prompt"])}
    return {"prompt_key": compute_query_key(fields["query"])}
