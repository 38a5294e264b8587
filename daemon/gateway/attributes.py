"""One call as OpenInference attributes: request and answer in, flat attributes out.

Specification: https://github.com/Arize-ai/openinference/blob/main/spec/semantic_conventions.md.
Requests are strangers' JSON: what is not of the expected type is left out, and never an error.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

Attributes = dict[str, str | int | bool]
Attribute = tuple[str, str | int | bool]
_NOT_PARAMETERS = frozenset({"messages", "prompt", "tools", "functions"})
_TOKEN_COUNTS = {"prompt_tokens": "prompt", "completion_tokens": "completion", "total_tokens": "total"}


def describe_request(request: Mapping[str, Any]) -> Attributes:
    """Return the attributes of the agent's `request`, as it was sent."""
    return _replace_invalid_text(_list_request_attributes(request))


def describe_answer(answer: Mapping[str, Any]) -> Attributes:
    """Return the attributes of the `answer`; a stream's answer is assembled first (`sse.assemble`)."""
    return _replace_invalid_text(_list_answer_attributes(answer))


def _list_request_attributes(request: Mapping[str, Any]) -> Iterator[Attribute]:
    yield "input.value", _to_json(request)
    yield "input.mime_type", "application/json"
    parameters = {key: value for key, value in request.items() if key not in _NOT_PARAMETERS}
    yield "llm.invocation_parameters", _to_json(parameters)
    for index, message in enumerate(_to_list(request.get("messages"))):
        yield from _add_prefix(f"llm.input_messages.{index}.message", _list_message_attributes(message))
    for index, tool in enumerate(_to_list(request.get("tools"))):
        yield f"llm.tools.{index}.tool.json_schema", _to_json(tool)
    prompt = request.get("prompt")
    for index, text in enumerate(prompt if isinstance(prompt, list) else [prompt]):
        if isinstance(text, str):
            yield f"llm.prompts.{index}.prompt.text", text


def _list_answer_attributes(answer: Mapping[str, Any]) -> Iterator[Attribute]:
    yield "output.value", _to_json(answer)
    yield "output.mime_type", "application/json"
    for index, choice in enumerate(_to_list(answer.get("choices"))):
        if not isinstance(choice, dict):
            continue
        yield from _add_prefix(
            f"llm.output_messages.{index}.message", _list_message_attributes(choice.get("message"))
        )
        if isinstance(choice.get("text"), str):
            yield f"llm.choices.{index}.completion.text", choice["text"]
        if index == 0 and isinstance(choice.get("finish_reason"), str):
            yield "llm.finish_reason", choice["finish_reason"]
    usage = answer.get("usage")
    for key, name in _TOKEN_COUNTS.items():
        if isinstance(usage, dict) and type(usage.get(key)) is int:
            yield f"llm.token_count.{name}", usage[key]


def _list_message_attributes(message: Any) -> Iterator[Attribute]:
    if not isinstance(message, dict):
        return
    for key in ("role", "name", "tool_call_id"):
        if isinstance(message.get(key), str):
            yield key, message[key]
    content = message.get("content")
    if isinstance(content, str):
        yield "content", content
    for index, part in enumerate(_to_list(content)):
        yield from _add_prefix(f"contents.{index}.message_content", _list_part_attributes(part))
    for index, call in enumerate(_to_list(message.get("tool_calls"))):
        yield from _add_prefix(f"tool_calls.{index}.tool_call", _list_tool_call_attributes(call))


def _list_part_attributes(part: Any) -> Iterator[Attribute]:
    if not isinstance(part, dict):
        return
    if isinstance(part.get("text"), str):
        yield "type", "text"
        yield "text", part["text"]
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, dict) else image
    if isinstance(url, str):
        yield "type", "image"
        yield "image.image.url", url


def _list_tool_call_attributes(call: Any) -> Iterator[Attribute]:
    if not isinstance(call, dict):
        return
    if isinstance(call.get("id"), str):
        yield "id", call["id"]
    function = call.get("function")
    for key in ("name", "arguments"):
        if isinstance(function, dict) and isinstance(function.get(key), str):
            yield f"function.{key}", function[key]


def _add_prefix(prefix: str, items: Iterator[Attribute]) -> Iterator[Attribute]:
    for key, value in items:
        yield f"{prefix}.{key}", value


def _to_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _replace_invalid_text(items: Iterator[Attribute]) -> Attributes:
    return {key: to_valid_text(value) if isinstance(value, str) else value for key, value in items}


def to_valid_text(text: str) -> str:
    """Return `text` as UTF-8 can carry it: JSON may spell half of a surrogate pair, protobuf may not."""
    return text.encode("utf-8", "replace").decode("utf-8")
