"""A reading of a call, compared with what was really said."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from extractors.examples.types import Message, ToolCall
from extractors.span_parsing.calls import ModelCall
from tests.corpus.said import OfferedTool, SaidAnswer, SaidCall, SaidMessage, ServedCall


def find_untruths(reading: ModelCall, call: ServedCall) -> list[str]:
    """Return what `reading` says that was not said, or leaves out; nothing where it is right.

    Tools and thoughts may be missing as a whole: many tracers do not record them.
    """
    return [*_find_inexpressible(call), *_compare_prompts(reading, call), *_compare_rest(reading, call)]


def find_gaps(reading: ModelCall, call: ServedCall) -> list[str]:
    """Return which parts of the call the reading lacks as a whole."""
    gaps = {
        "tools": call.tools and not reading.tools,
        "thoughts": call.answers[0].thoughts and not reading.response.reasoning,
    }
    return [part for part, missing in gaps.items() if missing]


def _find_inexpressible(call: ServedCall) -> Iterator[str]:
    """What makes a call one that must not be read at all."""
    if any(message.images for message in call.messages):
        yield "there was an image"
    if len(call.answers) > 1:
        yield "there were several answers"
    if call.answers[0].error:
        yield "the provider failed"
    if call.answers[0].cut_off:
        yield "the answer was cut off"


def _compare_prompts(reading: ModelCall, call: ServedCall) -> Iterator[str]:
    roles = [message.role for message in reading.prompt]
    said_roles = [message.role for message in call.messages]
    if roles != said_roles:
        yield f"the roles are {roles}, not {said_roles}"
        return
    for number, (message, said) in enumerate(zip(reading.prompt, call.messages, strict=True)):
        if not _is_same_text(message.content, said.text, is_result=said.role == "tool"):
            yield f"message {number} says {message.content!r}, not {said.text!r}"
        if not _are_same_calls(message.tool_calls, said.calls):
            yield f"message {number} calls {message.tool_calls}, not {said.calls}"
    if not _are_linked_alike(reading.prompt, call.messages):
        yield "a tool's result belongs to another call"


def _compare_rest(reading: ModelCall, call: ServedCall) -> Iterator[str]:
    answer: SaidAnswer = call.answers[0]
    if reading.response.content != answer.text:
        yield f"the answer says {reading.response.content!r}, not {answer.text!r}"
    if not _are_same_calls(reading.response.tool_calls, answer.calls):
        yield f"the answer calls {reading.response.tool_calls}, not {answer.calls}"
    if reading.response.reasoning not in (None, answer.thoughts):
        yield f"the answer thinks {reading.response.reasoning!r}, not {answer.thoughts!r}"
    if reading.tools and _list_tools(reading.tools) != _list_said_tools(call.tools):
        yield f"the tools are {reading.tools}, not {call.tools}"


def _is_same_text(read: str, said: str, *, is_result: bool) -> bool:
    """Results of tools are often JSON, which tracers write anew."""
    return read == said or (is_result and _parse(read) == _parse(said) is not None)


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _are_same_calls(read: Sequence[ToolCall], said: Sequence[SaidCall]) -> bool:
    return [(call.name, json.loads(call.arguments)) for call in read] == [
        (call.name, call.arguments) for call in said
    ]


def _are_linked_alike(read: Sequence[Message], said: Sequence[SaidMessage]) -> bool:
    """Whether each result that names a call names the same call; ids themselves may differ."""
    ids = [call.id for message in read for call in message.tool_calls]
    said_ids = [call.id for message in said for call in message.calls]
    links = [
        (ids.index(message.tool_call_id), said_ids.index(told.answers))
        for message, told in zip(read, said, strict=True)
        if message.tool_call_id in ids and message.tool_call_id is not None and told.answers is not None
    ]
    return all(place == said_place for place, said_place in links)


def _list_tools(tools: Sequence[dict[str, Any]]) -> list[Any]:
    functions = [tool["function"] for tool in tools]
    return [(each["name"], each.get("description"), each.get("parameters")) for each in functions]


def _list_said_tools(tools: Sequence[OfferedTool]) -> list[Any]:
    return [(tool.name, tool.description, tool.parameters) for tool in tools]
