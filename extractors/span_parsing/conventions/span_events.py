"""Messages in the events of a span, as older GenAI tracers, Strands and Azure's write them.

The events stand under the attribute root `events`: the mirror puts those of Phoenix there, and older
releases of pydantic-ai write an attribute of that name.
"""

from collections.abc import Mapping
from typing import Any

from extractors.phoenix.spans import Span
from extractors.span_parsing.conventions.genai import (
    read_completion,
    read_definitions,
    to_answer,
    to_choices,
)
from extractors.span_parsing.messages.chat_messages import read_chat, read_chats
from extractors.span_parsing.nested_attributes import parse_json, parse_list
from extractors.span_parsing.recorded import AnswerRecord, RequestRecord, join_items

MESSAGE_EVENTS = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}
"""Roles of the messages of events, by the name of the event."""

MESSAGE_BLOCK_KEYS = frozenset(
    {"text", "toolUse", "toolResult", "reasoningContent", "image", "document", "video"}
)
"""Keys of Bedrock's blocks in a message."""


def read_request(span: Span) -> RequestRecord | None:
    """Read the messages in the span's events. Raises Unreadable."""
    chats = []
    for name, attributes in _list_events(span):
        if name in MESSAGE_EVENTS:
            chats.append(_to_chat(MESSAGE_EVENTS[name], attributes))
        elif name == "gen_ai.content.prompt":
            chats += parse_list(attributes.get("gen_ai.prompt"))
        elif name == "gen_ai.client.inference.operation.details":
            instructions = parse_list(attributes.get("gen_ai.system_instructions"))
            chats += [{"role": "system", "parts": instructions}] if instructions else []
            chats += parse_list(attributes.get("gen_ai.input.messages"))
    if not chats:
        return None
    return RequestRecord(join_items(read_chats(chats, unwrap=True)), read_definitions(span.attributes))


def read_answer(span: Span) -> AnswerRecord | None:
    """Read the choices in the span's events. Raises Unreadable."""
    choices = []
    for name, attributes in _list_events(span):
        if name == "gen_ai.choice":
            choices.append(read_chat(_to_chat("assistant", attributes), unwrap=True))
        elif name == "gen_ai.content.completion":
            choices += [read_completion(each) for each in parse_list(attributes.get("gen_ai.completion"))]
        elif name == "gen_ai.client.inference.operation.details":
            written = parse_list(attributes.get("gen_ai.output.messages"))
            choices += [read_chat(to_answer(each), unwrap=True) for each in written]
    return to_choices(choices)


def _list_events(span: Span) -> list[tuple[str, dict[str, Any]]]:
    """Return names and attributes of the span's events; some tracers keep them in an attribute, as JSON."""
    events = parse_json(span.attributes.get("events"))
    listed = [event for event in events if isinstance(event, dict)] if isinstance(events, list) else []
    named = [(event.get("event.name", event.get("name")), event.get("attributes", event)) for event in listed]
    return [(name, fields) for name, fields in named if isinstance(name, str) and isinstance(fields, dict)]


def _to_chat(role: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the message of an event, which may lie in one of its attributes as JSON."""
    bodies = [parse_json(fields.get(key)) for key in ("message", "body", "gen_ai.event.content")]
    inner = next((body for body in bodies if isinstance(body, dict | list)), fields)
    if isinstance(inner, list):
        inner = {"content": inner}
    inner = inner["message"] if isinstance(inner.get("message"), dict) else inner
    chat = {key: inner[key] for key in ("content", "name", "role") if key in inner}
    blocks = parse_json(chat.get("content"))
    if isinstance(blocks, list) and all(
        isinstance(x, dict) and not MESSAGE_BLOCK_KEYS.isdisjoint(x) for x in blocks
    ):
        # Strands writes Bedrock's blocks.
        chat["content"] = blocks
    if inner.get("tool_calls"):
        chat["tool_calls"] = parse_json(inner["tool_calls"])
    if role == "tool":
        chat["tool_call_id"] = inner.get("tool_call_id", inner.get("id"))
    return {"role": role, **chat}
