"""When two texts or prompts are the same to a reader: without regard to case, white space or Unicode form."""

import unicodedata
from collections.abc import Sequence
from typing import Any

from extractors.examples.types import Message
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
