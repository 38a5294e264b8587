"""A call that was read, checked as a conversation before it may teach anything."""

from collections.abc import Sequence
from typing import Any

from extractors.examples.types import Message, ToolCall
from extractors.span_parsing.drop_reasons import DropReason, Unreadable
from extractors.span_parsing.nested_attributes import parse_json

ITEM_PREFIX = "fc_"
"""How ids of items of the Responses API begin, which a tracer may write for the ids of calls."""


def check_prompt(prompt: Sequence[Message]) -> None:
    """Check that a prompt is whole: tool results follow their calls, and every turn says something.

    Raises Unreadable: NO_PROMPT, NOT_WHOLE, BROKEN_ARGUMENTS; PREFILLED where the assistant speaks last.
    """
    if not any(message.content.strip() or message.tool_calls for message in prompt):
        raise Unreadable(DropReason.NO_PROMPT)
    waiting: list[ToolCall] = []
    for message in prompt:
        if message.role == "tool":
            waiting.remove(_find_call(message, waiting))
            continue
        is_empty = not message.content.strip() and not message.tool_calls and message.role != "system"
        if waiting or is_empty or _repeats_an_id(message.tool_calls):
            raise Unreadable(DropReason.NOT_WHOLE)
        _check_arguments(message)
        waiting = list(message.tool_calls)
    if waiting:
        raise Unreadable(DropReason.NOT_WHOLE)
    if prompt[-1].role == "assistant":
        raise Unreadable(DropReason.PREFILLED)


def _find_call(result: Message, waiting: Sequence[ToolCall]) -> ToolCall:
    """Return the call that a tool's result answers: by id, else by name, else in order."""
    for call in waiting:
        if result.tool_call_id is not None and result.tool_call_id == call.id:
            return call
    for call in waiting:
        untold = not result.tool_call_id or not call.id or call.id.startswith(ITEM_PREFIX)
        if untold and (result.name is None or result.name == call.name):
            return call
    raise Unreadable(DropReason.NOT_WHOLE)


def _repeats_an_id(calls: Sequence[ToolCall]) -> bool:
    ids = [call.id for call in calls if call.id]
    return len(set(ids)) < len(ids)


def check_answer(answer: Message, tools: Sequence[dict[str, Any]]) -> None:
    """Check that an answer calls only tools that were offered, where any were, with JSON objects.

    Raises Unreadable: UNKNOWN_TOOL, BROKEN_ARGUMENTS, NOT_WHOLE.
    """
    offered = {tool["function"].get("name") for tool in tools}
    if offered and any(call.name not in offered for call in answer.tool_calls):
        raise Unreadable(DropReason.UNKNOWN_TOOL)
    if _repeats_an_id(answer.tool_calls):
        raise Unreadable(DropReason.NOT_WHOLE)
    _check_arguments(answer)


def _check_arguments(message: Message) -> None:
    if not all(isinstance(parse_json(call.arguments), dict) for call in message.tool_calls):
        raise Unreadable(DropReason.BROKEN_ARGUMENTS)
