"""OpenInference attributes, as Phoenix nests them: messages, tools, prompts, answers.

Specification: https://github.com/Arize-ai/openinference/blob/main/spec/semantic_conventions.md
"""

import re
from typing import Any

from extractors.examples.types import Message
from extractors.phoenix.spans import Span
from extractors.span_parsing.chat_messages import (
    ChatRequest,
    merge_output_messages,
    read_content,
    read_message,
    read_response,
    read_tools,
)
from extractors.span_parsing.chat_messages import read_request as read_body
from extractors.span_parsing.drop_reasons import DropReason, Unreadable
from extractors.span_parsing.nested_attributes import count_attributes, get_path, parse_json, to_entries

# A span that lost attributes has as many as its tracer's limit allows (128 by default); a few
# of them lie outside the attribute roots that the mirror keeps.
SUSPICIOUS_COUNT = 100
PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}|\{(\w+)\}")


def read_listed_request(span: Span) -> ChatRequest | None:
    """The request from `llm.input_messages` and `llm.tools`; None where there are no messages.

    Raises Unreadable; TRUNCATED where the tracer must be thought to have dropped messages.
    """
    listed = get_path(span.attributes, "llm.input_messages")
    if not listed:
        return None
    messages = to_entries(listed)
    # Phoenix closes the gap that dropped messages leave, so what was set before them must be there.
    lost = span.kind == "UNKNOWN" or (
        get_path(span.attributes, "input.value") is None
        and count_attributes(span.attributes) >= SUSPICIOUS_COUNT
    )
    if lost:
        raise Unreadable(DropReason.TRUNCATED)
    chats = [_to_chat(entry.get("message")) for entry in messages]
    if any("role" not in chat for chat in chats):
        raise Unreadable(DropReason.TRUNCATED)
    return ChatRequest(prompt=tuple(read_message(chat) for chat in chats), tools=_read_tools(span.attributes))


def read_body_request(span: Span) -> ChatRequest | None:
    """The request from a JSON body in `input.value`; None where it is no chat request."""
    request = read_body(parse_json(get_path(span.attributes, "input.value")))
    if request and not request.tools:
        return request.model_copy(update={"tools": _read_tools(span.attributes)})
    return request


def read_plain_request(span: Span) -> ChatRequest | None:
    """A prompt that is one text: `llm.prompts`, `input.value` as text, or a filled template."""
    text = (
        _read_completion_prompt(span.attributes)
        or _read_plain_text(span.attributes, "input")
        or _fill_template(span.attributes)
    )
    if not text:
        return None
    return ChatRequest(prompt=(Message(role="user", content=text),), tools=_read_tools(span.attributes))


def read_listed_answer(span: Span) -> Message | None:
    """The answer from `llm.output_messages`, or a completion's `llm.choices`."""
    listed = get_path(span.attributes, "llm.output_messages")
    if listed:
        # An answer is the last thing that is set: a role that is missing was never written.
        chats = [{"role": "assistant", **_to_chat(entry.get("message"))} for entry in to_entries(listed)]
        return merge_output_messages([read_message(chat) for chat in chats])
    choices = get_path(span.attributes, "llm.choices")
    if choices:
        texts = [get_path(entry, "completion.text") for entry in to_entries(choices)]
        return merge_output_messages(
            [Message(role="assistant", content=read_content(text)) for text in texts]
        )
    return None


def read_value_answer(span: Span) -> Message | None:
    """The answer from `output.value`: a JSON response that is known, or plain text."""
    body = parse_json(get_path(span.attributes, "output.value"))
    if isinstance(body, dict) or get_path(span.attributes, "output.mime_type") == "application/json":
        response = read_response(body)
        if response is not None:
            return response
    text = _read_plain_text(span.attributes, "output")
    return merge_output_messages([Message(role="assistant", content=text)]) if text else None


def _to_chat(message: Any) -> dict[str, Any]:
    """An OpenInference message in OpenAI's chat format."""
    if message is None:
        raise Unreadable(DropReason.TRUNCATED)
    if not isinstance(message, dict):
        raise Unreadable(DropReason.MALFORMED)
    chat = {key: message[key] for key in ("role", "content", "tool_call_id", "name") if key in message}
    if not chat.get("content") and message.get("contents"):
        chat["content"] = [
            _to_part(entry.get("message_content")) for entry in to_entries(message["contents"])
        ]
    if message.get("tool_calls"):
        chat["tool_calls"] = [entry.get("tool_call") for entry in to_entries(message["tool_calls"])]
    elif message.get("function_call_name"):
        arguments = message.get("function_call_arguments_json", "{}")
        chat["function_call"] = {"name": message["function_call_name"], "arguments": arguments}
    return chat


def _to_part(part: Any) -> Any:
    if isinstance(part, dict) and part.get("type") is None and isinstance(part.get("text"), str):
        return part["text"]
    return part


def _read_tools(attributes: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    listed = get_path(attributes, "llm.tools")
    return read_tools(
        [get_path(entry, "tool.json_schema") for entry in to_entries(listed)] if listed else None
    )


def _read_completion_prompt(attributes: dict[str, Any]) -> str | None:
    prompts = get_path(attributes, "llm.prompts")
    if not isinstance(prompts, list) or len(prompts) != 1:
        return None
    text = prompts[0] if isinstance(prompts[0], str) else get_path(prompts[0], "prompt.text")
    return text if isinstance(text, str) else None


def _read_plain_text(attributes: dict[str, Any], side: str) -> str | None:
    """`input.value` or `output.value` where it is text; OpenInference's default MIME type is text."""
    value, mime_type = get_path(attributes, f"{side}.value"), get_path(attributes, f"{side}.mime_type")
    if not isinstance(value, str) or mime_type not in (None, "text/plain"):
        return None
    return value


def _fill_template(attributes: dict[str, Any]) -> str | None:
    """The prompt template with its variables; None where one is missing."""
    template = get_path(attributes, "llm.prompt_template.template")
    variables = parse_json(get_path(attributes, "llm.prompt_template.variables"))
    if not isinstance(template, str) or not isinstance(variables, dict):
        return None
    names = [match[1] or match[2] for match in PLACEHOLDER.finditer(template)]
    if not all(isinstance(variables.get(name), str | int | float) for name in names):
        return None
    return PLACEHOLDER.sub(lambda match: str(variables[match[1] or match[2]]), template)
