"""Keys that are equal where two prompts, queries or answers are the same to a reader.

Case, white space and Unicode form do not count, nor does a system prompt.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from extractors.examples.types import Message
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
    """Return the content of a message without ids of tool calls and surrounding space, to compare it."""
    return [
        message.role,
        message.content.strip(),
        [[call.name, call.arguments] for call in message.tool_calls],
        message.name,
    ]


def compute_query_key(query: str) -> str:
    """Return one key for queries that differ only in case, white space or Unicode form."""
    return content_id(["query", normalise(query)])


def is_nearly_equal(one: Message, other: Message) -> bool:
    """Return whether two answers differ in nothing but case, white space and Unicode form."""
    return _fold(one) == _fold(other)


def _fold(message: Message) -> list[object]:
    return [
        normalise(message.content),
        [[call.name, normalise(call.arguments)] for call in message.tool_calls],
    ]


def compute_prompt_keys(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the normalised prompts of a record with these `fields`, by the field that keeps them."""
    if "messages" in fields:
        messages = fields["messages"]
        answers = [at for at, message in enumerate(messages) if message.role == "assistant"]
        return {"prompt_keys": tuple(compute_prompt_key(messages[:at]) for at in answers)}
    if "prompt" in fields:
        return {"prompt_key": compute_prompt_key(fields["prompt"])}
    return {"prompt_key": compute_query_key(fields["query"])}
