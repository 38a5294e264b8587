"""When two texts or prompts are the same to a reader: without regard to case, white space or Unicode form."""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from extractors.examples.types import (
    Message,
)
from extractors.values import content_id


def normalised(text: str) -> str:
    """`text` in NFKC, lower case, with single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def prompt_key(prompt: Sequence[Message]) -> str:
    """One key for prompts that differ only in system prompt, case, white space or Unicode form.

    Tool calls and results count by content, not by their random ids.
    """
    turns = [message for message in prompt if message.role != "system"] or prompt
    return content_id(
        [
            [
                turn.role,
                normalised(turn.content),
                [[call.name, normalised(call.arguments)] for call in turn.tool_calls],
            ]
            for turn in turns
        ]
    )


def said_alike(message: Message) -> list[Any]:
    """What a message says, without ids of tool calls and surrounding space: equal where it says the same."""
    return [
        message.role,
        message.content.strip(),
        [[call.name, call.arguments] for call in message.tool_calls],
        message.name,
    ]


def query_key(query: str) -> str:
    """One key for queries that differ only in case, white space or Unicode form."""
    return content_id(["query", normalised(query)])


def nearly_equal(one: Message, other: Message) -> bool:
    """Whether two answers differ in nothing but case, white space and Unicode form."""
    return _folded(one) == _folded(other)


def _folded(message: Message) -> list[object]:
    return [
        normalised(message.content),
        [[call.name, normalised(call.arguments)] for call in message.tool_calls],
    ]


def prompt_keys(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The normalised prompts of a record with these `fields`, by the field that keeps them."""
    if "messages" in fields:
        said = fields["messages"]
        answers = [at for at, message in enumerate(said) if message.role == "assistant"]
        return {"prompt_keys": tuple(prompt_key(said[:at]) for at in answers)}
    if "prompt" in fields:
        return {"prompt_key": prompt_key(fields["prompt"])}
    return {"prompt_key": query_key(fields["query"])}
