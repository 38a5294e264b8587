"""OpenTelemetry GenAI attributes.

    current     gen_ai.input.messages, gen_ai.output.messages (JSON), gen_ai.system_instructions
    older       gen_ai.prompt.N.*, gen_ai.completion.N.*, or JSON in gen_ai.prompt and gen_ai.completion

Specification: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
Phoenix maps the current ones to OpenInference on arrival, but all or nothing: one message
that its schema does not know, and none arrives there.
"""

from collections.abc import Mapping
from typing import Any

from extractors.phoenix.spans import Span
from extractors.span_parsing.conventions.bodies import read_request_body, read_response_body
from extractors.span_parsing.drop_reasons import DropReason, Unreadable
from extractors.span_parsing.messages.chat_messages import read_chat, read_chats
from extractors.span_parsing.messages.tools import read_tools
from extractors.span_parsing.nested_attributes import (
    get_path,
    may_have_lost_attributes,
    parse_json,
    parse_list,
    parse_uncut_json,
    to_entries,
)
from extractors.span_parsing.recorded import (
    AnswerRecord,
    RecordedMessage,
    RequestRecord,
    join_choice,
    join_items,
)

FIRST_ATTRIBUTES = ("gen_ai.system", "gen_ai.provider.name", "gen_ai.operation.name", "llm.request.type")
"""What tracers set before the messages: while one is there, no message was dropped."""


def read_request(span: Span) -> RequestRecord | None:
    """Read `gen_ai.input.messages`; None where there are none. Raises Unreadable."""
    gen_ai = span.attributes.get("gen_ai")
    messages = parse_list(get_path(gen_ai, "input.messages"))
    if not messages:
        return None
    instructions = _read_instructions(gen_ai)
    return RequestRecord(
        messages=join_items((*instructions, *read_chats(messages, unwrap=True))),
        tools=read_definitions(span.attributes),
        system_apart=bool(instructions),
    )


def count_mapped_messages(span: Span) -> int:
    """Return how many messages Phoenix makes of those of the span, instructions included."""
    gen_ai = span.attributes.get("gen_ai")
    messages = parse_json(get_path(gen_ai, "input.messages"))
    if not isinstance(messages, list):
        return 0
    return len(messages) + bool(get_path(gen_ai, "system_instructions"))


def read_answer(span: Span) -> AnswerRecord | None:
    """Read `gen_ai.output.messages`: each message is a choice. Raises Unreadable."""
    messages = parse_list(get_path(span.attributes, "gen_ai.output.messages"))
    if any(map(_may_be_last_piece, messages)):
        raise Unreadable(DropReason.ANSWER_NOT_WHOLE)
    return to_choices([read_chat(to_answer(each), unwrap=True) for each in messages])


def read_older_request(span: Span) -> RequestRecord | None:
    """Read `gen_ai.prompt`: an attribute for each field of a message, JSON, or a text. Raises Unreadable."""
    written = get_path(span.attributes, "gen_ai.prompt")
    if isinstance(written, str):
        parsed = parse_uncut_json(written)
        if isinstance(parsed, dict):
            # LangSmith writes the bodies of request and response.
            return read_request_body(parsed)
        messages = parsed if isinstance(parsed, list) else [{"role": "user", "content": written}]
    else:
        messages = _list_indexed(span, written)
    if not messages:
        return None
    return RequestRecord(join_items(read_chats(messages, unwrap=True)), read_definitions(span.attributes))


def read_older_answer(span: Span) -> AnswerRecord | None:
    """Read `gen_ai.completion`, in the forms of `gen_ai.prompt`. Raises Unreadable."""
    written = get_path(span.attributes, "gen_ai.completion")
    if isinstance(written, str):
        parsed = parse_uncut_json(written)
        if (answer := read_response_body(parsed)) is not None:
            return answer
        messages = parsed if isinstance(parsed, list) else [parsed if isinstance(parsed, dict) else written]
    else:
        entries = to_entries(written) if written else []
        messages = [entry for entry in entries if entry.keys() - {"finish_reason", "role"}]
    return to_choices([read_completion(message) for message in messages])


def is_genai_span(span: Span) -> bool:
    """Return whether a tracer of GenAI, or of Vercel's AI SDK, wrote the span."""
    return "gen_ai" in span.attributes or "ai" in span.attributes


def _may_be_last_piece(message: Any) -> bool:
    """Return whether a message calls tools alone, as OpenLLMetry's tracer of Gemini writes it.

    It keeps the last piece of a stream, does not tell streams from whole answers, and gives calls no id.
    """
    parts = get_path(message, "parts")
    return (
        isinstance(parts, list)
        and bool(parts)
        and all(get_path(part, "type") == "tool_call" and get_path(part, "id") == "" for part in parts)
    )


def to_answer(message: Any) -> dict[str, Any]:
    """Return an output message, the assistant's where its tracer did not know the role of a streamed one."""
    answer = {"role": "assistant", **_to_mapping(message)}
    return {**answer, "role": "assistant"} if answer["role"] in (None, "", "unknown") else answer


def _to_mapping(message: Any) -> Mapping[str, Any]:
    if not isinstance(message, dict):
        raise Unreadable(DropReason.MALFORMED)
    return message


def _list_indexed(span: Span, listed: Any) -> list[dict[str, Any]]:
    if not listed:
        return []
    messages = [_to_message(entry) for entry in to_entries(listed)]
    if _lost_attributes(span) or any("role" not in message for message in messages):
        raise Unreadable(DropReason.TRUNCATED)
    return messages


def _to_message(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an indexed message; older tracers of OpenLLMetry write the user's words under `user`."""
    return {"role": "user", "content": entry["user"]} if set(entry) == {"user"} else entry


def _lost_attributes(span: Span) -> bool:
    """Return whether the tracer must be thought to have dropped the oldest attributes."""
    first = any(get_path(span.attributes, path) is not None for path in FIRST_ATTRIBUTES)
    return not first and may_have_lost_attributes(span.attributes)


def read_completion(message: Any) -> list[RecordedMessage]:
    """Read an answer of `gen_ai.completion`: a text, a completion or a message. Raises Unreadable."""
    if isinstance(message, str):
        return read_chat({"role": "assistant", "content": message}, unwrap=True)
    message = _to_mapping(message)
    if "text" in message and "role" not in message:
        message = {"role": "assistant", "content": message["text"]}
    return read_chat({"role": "assistant", **message}, unwrap=True)


def to_choices(choices: list[list[RecordedMessage]]) -> AnswerRecord | None:
    """Return the record of answers of which each is a choice, given as its items; None without any."""
    joined = [message for choice in choices for message in join_choice(choice)]
    return AnswerRecord(tuple(joined), are_choices=True) if joined else None


def _read_instructions(gen_ai: Any) -> list[RecordedMessage]:
    written = get_path(gen_ai, "system_instructions")
    parts = parse_uncut_json(written) or written
    return read_chat({"role": "system", "content": parts}) if parts else []


def read_definitions(attributes: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """Read `gen_ai.tool.definitions`, or the older `llm.request.functions`. Raises Unreadable."""
    definitions = parse_uncut_json(get_path(attributes, "gen_ai.tool.definitions"))
    functions = get_path(attributes, "llm.request.functions")
    return read_tools(definitions or (to_entries(functions) if functions else None))
