"""Conversations as tests compare them: by what was said and called, not by ids and white space."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from extractors.examples.types import Message
from extractors.span_parsing.calls import ModelCall, read_call
from extractors.span_parsing.drop_reasons import DropReason
from tests.support.otlp import decode


@dataclass(frozen=True)
class Call:
    """A call of a tool, by its name and its parsed arguments."""

    name: str
    arguments: Any = field(default_factory=dict)


@dataclass(frozen=True)
class Turn:
    """A message: what was said, the tools that were called, and for a tool's result the call it answers."""

    role: str
    text: str = ""
    calls: tuple[Call, ...] = ()
    answers: Call | None = None


def read(attributes: dict[str, Any], **given: Any) -> ModelCall:
    """Return the call that a span with these flat attributes traced. Fails where it cannot be read."""
    found = read_call(decode(attributes, **given))
    assert isinstance(found, ModelCall), f"refused: {found.name}"
    return found


def refuse(attributes: dict[str, Any], **given: Any) -> DropReason:
    """Return why a span with these flat attributes is not read. Fails where it is read."""
    found = read_call(decode(attributes, **given))
    assert isinstance(found, DropReason), f"read: {outline(found)}"
    return found


def read_turns(attributes: dict[str, Any], **given: Any) -> list[Turn]:
    """Return the prompt and the answer of the span with these flat attributes. Fails where it is refused."""
    return outline(read(attributes, **given))


def outline(call: ModelCall) -> list[Turn]:
    """Return the prompt and the answer, the answer last. Fails where a tool's result answers no call."""
    return outline_messages([*call.prompt, call.response])


def outline_messages(messages: Sequence[Message]) -> list[Turn]:
    """Return messages as turns, without ids and outer white space; runs of white space become one blank."""
    turns: list[Turn] = []
    open_calls: list[tuple[str | None, Call]] = []
    for message in messages:
        answers = None
        if message.role == "tool":
            found = _find_answered(open_calls, message)
            assert found is not None, f"no call is answered by {message}"
            open_calls.remove(found)
            answers = found[1]
        calls = [(call.id, Call(call.name, json.loads(call.arguments))) for call in message.tool_calls]
        open_calls += calls
        said = " ".join(message.content.split())
        turns.append(Turn(message.role, said, tuple(call for _, call in calls), answers))
    return turns


def _find_answered(
    open_calls: Sequence[tuple[str | None, Call]], result: Message
) -> tuple[str | None, Call] | None:
    """Return the call with the result's id; where one of the two has no id, the first that may be meant."""
    named = [entry for entry in open_calls if entry[0] == result.tool_call_id is not None]
    untold = [
        (call_id, call)
        for call_id, call in open_calls
        if None in (call_id, result.tool_call_id) and result.name in (None, call.name)
    ]
    return next(iter([*named, *untold]), None)
