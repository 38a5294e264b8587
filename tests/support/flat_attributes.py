"""Flat OTLP attributes, as tracers of the conventions write them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def flatten(prefix: str, value: Any) -> dict[str, Any]:
    """Return nested mappings and lists as flat attributes: `prefix.key` and `prefix.N`."""
    return dict(_walk(prefix, value))


def _walk(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _walk(f"{prefix}.{key}", inner)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _walk(f"{prefix}.{number}", inner)
    elif value is not None:
        yield prefix, value


def list_messages(side: str, *messages: Mapping[str, Any]) -> dict[str, Any]:
    """Return OpenInference's `llm.{side}_messages`; of a message, what OpenAI's format calls it.

    `contents` are the parts of its content, by their keys (a part that is None stays a gap), `tool_calls`
    have `id` and `function`.
    """
    attributes: dict[str, Any] = {}
    for number, message in enumerate(messages):
        attributes |= flatten(f"llm.{side}_messages.{number}.message", _wrap(message))
    return attributes


def _wrap(message: Mapping[str, Any]) -> dict[str, Any]:
    wrapped = dict(message)
    if "contents" in message:
        wrapped["contents"] = [
            {"message_content": part} if part is not None else {} for part in message["contents"]
        ]
    if "tool_calls" in message:
        wrapped["tool_calls"] = [{"tool_call": call} for call in message["tool_calls"]]
    return wrapped


def write_body(side: str, body: Any) -> dict[str, Any]:
    """Return `{side}.value` with this JSON."""
    return {f"{side}.value": json.dumps(body, ensure_ascii=False), f"{side}.mime_type": "application/json"}


def write_tools(*schemas: Any) -> dict[str, Any]:
    """Return OpenInference's `llm.tools` with these definitions."""
    return {f"llm.tools.{n}.tool.json_schema": json.dumps(schema) for n, schema in enumerate(schemas)}


def write_llm(
    messages: Sequence[Mapping[str, Any]] | None = None,
    answer: Any = None,
    *,
    body: Any = None,
    output: Any = None,
    tools: list[Any] | None = None,
    **further: Any,
) -> dict[str, Any]:
    """Return an OpenInference LLM span: listed messages, the answer (text, a message or several), bodies.

    Dots in the names of `further` attributes are written as two underscores.
    """
    attributes: dict[str, Any] = {"openinference.span.kind": "LLM"}
    if body is not None:
        attributes |= write_body("input", body)
    if tools:
        attributes |= write_tools(*tools)
    attributes |= list_messages("input", *(messages or []))
    if isinstance(answer, str):
        answer = {"role": "assistant", "content": answer}
    if answer is not None:
        attributes |= list_messages("output", *(answer if isinstance(answer, list) else [answer]))
    if output is not None:
        attributes |= write_body("output", output)
    return attributes | {key.replace("__", "."): value for key, value in further.items()}


def write_genai(messages: Sequence[Any], answer: Any, **further: Any) -> dict[str, Any]:
    """Return a GenAI chat span in its current convention; `answer` is a text, a message or several.

    Dots in the names of `further` attributes are written as two underscores.
    """
    if isinstance(answer, str):
        answer = {
            "role": "assistant",
            "parts": [{"type": "text", "content": answer}],
            "finish_reason": "stop",
        }
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m",
        "gen_ai.input.messages": json.dumps(messages),
        "gen_ai.output.messages": json.dumps(answer if isinstance(answer, list) else [answer]),
        **{key.replace("__", "."): value for key, value in further.items()},
    }


def write_indexed(messages: Sequence[Mapping[str, Any]], answer: Any, **further: Any) -> dict[str, Any]:
    """Return an LLM span as OpenLLMetry's older releases index it; `answer` is a text, a message or several.

    Dots in the names of `further` attributes are written as two underscores.
    """
    if isinstance(answer, str):
        answer = {"role": "assistant", "content": answer, "finish_reason": "stop"}
    return {
        "llm.request.type": "chat",
        "gen_ai.system": "openai",
        "gen_ai.request.model": "m",
        **{key.replace("__", "."): value for key, value in further.items()},
        **flatten("gen_ai.prompt", messages),
        **flatten("gen_ai.completion", answer if isinstance(answer, list) else [answer]),
    }


def write_part(content: str) -> dict[str, Any]:
    """Return a text part of a GenAI message."""
    return {"type": "text", "content": content}


def write_text(text: str) -> dict[str, Any]:
    """Return a text part of OpenAI's, Anthropic's and OpenInference's formats."""
    return {"type": "text", "text": text}


def write_call(call_id: str | None, name: str, **arguments: Any) -> dict[str, Any]:
    """Return a tool call of OpenAI's format."""
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": call_id, "type": "function", "function": function} if call_id else {"function": function}
