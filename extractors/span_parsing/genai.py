"""OpenTelemetry GenAI attributes, current (`gen_ai.input.messages`) and older (`gen_ai.prompt.N.*`).

Specification: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
Phoenix maps the current ones to OpenInference on arrival, but all or nothing: one message
that its schema does not know, and none arrives there.
"""

import json
from typing import Any

from extractors.examples.types import Message
from extractors.phoenix.spans import Span
from extractors.span_parsing.chat_messages import ChatRequest, merge_output_messages, read_message, read_tools
from extractors.span_parsing.drop_reasons import DropReason, Unreadable
from extractors.span_parsing.nested_attributes import get_path, parse_json, to_entries


def read_request(span: Span) -> ChatRequest | None:
    """System instructions, input messages and tool definitions; None where there are no messages."""
    gen_ai = span.attributes.get("gen_ai")
    messages = _read_messages(gen_ai, "input.messages") or _read_indexed(gen_ai, "prompt")
    if not messages:
        return None
    return ChatRequest(prompt=(*_read_instructions(gen_ai), *messages), tools=_read_tools(span.attributes))


def read_answer(span: Span) -> Message | None:
    """The answer from `gen_ai.output.messages` or `gen_ai.completion.N.*`."""
    gen_ai = span.attributes.get("gen_ai")
    return merge_output_messages(
        _read_messages(gen_ai, "output.messages") or _read_indexed(gen_ai, "completion")
    )


def _read_messages(gen_ai: Any, path: str) -> list[Message]:
    messages = parse_json(get_path(gen_ai, path)) or []
    if not isinstance(messages, list):
        raise Unreadable(DropReason.MALFORMED)
    return [message for written in messages for message in _read_parts(written)]


def _read_indexed(gen_ai: Any, path: str) -> list[Message]:
    listed = get_path(gen_ai, path)
    # An older convention kept the whole prompt as JSON in one attribute of the same name.
    listed = parse_json(listed) if isinstance(listed, str) else listed
    if not listed:
        return []
    messages = to_entries(listed)
    if any("role" not in message for message in messages):
        raise Unreadable(DropReason.TRUNCATED)
    return [read_message(message) for message in messages]


def _read_instructions(gen_ai: Any) -> list[Message]:
    written = get_path(gen_ai, "system_instructions")
    parts = parse_json(written) or written
    if not parts:
        return []
    parts = parts if isinstance(parts, list) else [{"type": "text", "content": parts}]
    return _read_parts({"role": "system", "parts": parts})


def _read_parts(message: Any) -> list[Message]:
    """One GenAI message as chat messages: each tool's response becomes a message of its own."""
    if not isinstance(message, dict):
        raise Unreadable(DropReason.MALFORMED)
    parts = message.get("parts")
    if parts is None:
        return [read_message(message)]
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise Unreadable(DropReason.MALFORMED)
    responses = [_read_tool_response(part) for part in parts if part.get("type") == "tool_call_response"]
    others = [part for part in parts if part.get("type") not in ("tool_call_response", "tool_call")]
    calls = [part for part in parts if part.get("type") == "tool_call"]
    if responses and not others and not calls:
        return responses
    content = [{**part, "text": part.get("content", "")} for part in others]
    return [read_message({**message, "content": content, "tool_calls": calls}), *responses]


def _read_tool_response(part: dict[str, Any]) -> Message:
    response = part.get("response", part.get("result"))
    text = response if isinstance(response, str) else json.dumps(response, ensure_ascii=False)
    return read_message({"role": "tool", "content": text, "tool_call_id": part.get("id")})


def _read_tools(attributes: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    definitions = parse_json(get_path(attributes, "gen_ai.tool.definitions"))
    functions = get_path(attributes, "llm.request.functions")
    return read_tools(definitions or (to_entries(functions) if functions else None))
