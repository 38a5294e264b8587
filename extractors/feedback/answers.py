"""Answers that reviewers write: corrections and candidates, read from an annotation."""

from typing import Any

from extractors.examples.prompt_keys import canonicalise_arguments
from extractors.examples.types import Message
from extractors.span_parsing.checks.storable import check_storable
from extractors.span_parsing.drop_reasons import DropReason, Unreadable
from extractors.span_parsing.messages.chat_messages import read_content, read_message
from extractors.span_parsing.nested_attributes import parse_json


def try_read_answer(written: Any) -> Message | None:
    """Read an answer as reviewers write it; None where nothing is written, or nothing that can be read."""
    try:
        return read_answer(written)
    except Unreadable:
        return None


def read_answer(written: Any) -> Message | None:
    """Read an answer as reviewers write it: text, or a chat message (also as JSON text) that calls tools.

    Returns None where nothing is written. Raises Unreadable.
    """
    try:
        message = parse_json(written)
        if isinstance(message, dict) and (message.get("tool_calls") or message is written):
            answer = read_message({**message, "role": "assistant"})
        else:
            answer = Message(role="assistant", content=read_content(written).strip())
    except RecursionError:
        raise Unreadable(DropReason.MALFORMED) from None
    if not answer.content.strip() and not answer.tool_calls:
        return None
    check_storable((answer,))
    return answer


def is_same_answer(one: Message, other: Message) -> bool:
    """Return whether both have the same text but for white space around it, and call the same tools.

    White space within the text counts: a reviewer may have corrected just that.
    """
    return one.content.strip() == other.content.strip() and _list_calls(one) == _list_calls(other)


def _list_calls(answer: Message) -> list[tuple[str, str]]:
    return [(call.name, canonicalise_arguments(call)) for call in answer.tool_calls]
