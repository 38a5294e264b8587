"""One call as OpenInference attributes: request and answer in, flat attributes out.

Specification: https://github.com/Arize-ai/openinference/blob/main/spec/semantic_conventions.md.
Requests are strangers' JSON: whatever is not of the expected type is left out, never an error.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

Attributes = dict[str, str | int | bool]
Item = tuple[str, str | int | bool]
_NOT_PARAMETERS = frozenset({"messages", "prompt", "tools", "functions"})
_TOKEN_COUNTS = {"prompt_tokens": "prompt", "completion_tokens": "completion", "total_tokens": "total"}


def request_attributes(request: Mapping[str, Any]) -> Attributes:
    """What the agent asked; `request` as it sent it."""
    return _clean(_of_request(request))


def answer_attributes(answer: Mapping[str, Any]) -> Attributes:
    """What came back; a stream's answer is put together first (`sse.assemble`)."""
    return _clean(_of_answer(answer))


def _of_request(request: Mapping[str, Any]) -> Iterator[Item]:
    yield "input.value", _json(request)
    yield "input.mime_type", "application/json"
    parameters = {key: value for key, value in request.items() if key not in _NOT_PARAMETERS}
    yield "llm.invocation_parameters", _json(parameters)
    for index, message in enumerate(_list(request.get("messages"))):
        yield from _prefixed(f"llm.input_messages.{index}.message", _message(message))
    for index, tool in enumerate(_list(request.get("tools"))):
        yield f"llm.tools.{index}.tool.json_schema", _json(tool)
    prompt = request.get("prompt")
    for index, text in enumerate(prompt if isinstance(prompt, list) else [prompt]):
        if isinstance(text, str):
            yield f"llm.prompts.{index}.prompt.text", text


def _of_answer(answer: Mapping[str, Any]) -> Iterator[Item]:
    yield "output.value", _json(answer)
    yield "output.mime_type", "application/json"
    for index, choice in enumerate(_list(answer.get("choices"))):
        if not isinstance(choice, dict):
            continue
        yield from _prefixed(f"llm.output_messages.{index}.message", _message(choice.get("message")))
        if isinstance(choice.get("text"), str):
            yield f"llm.choices.{index}.completion.text", choice["text"]
        if index == 0 and isinstance(choice.get("finish_reason"), str):
            yield "llm.finish_reason", choice["finish_reason"]
    usage = answer.get("usage")
    for key, name in _TOKEN_COUNTS.items():
        if isinstance(usage, dict) and type(usage.get(key)) is int:
            yield f"llm.token_count.{name}", usage[key]


def _message(message: Any) -> Iterator[Item]:
    if not isinstance(message, dict):
        return
    for key in ("role", "name", "tool_call_id"):
        if isinstance(message.get(key), str):
            yield key, message[key]
    content = message.get("content")
    if isinstance(content, str):
        yield "content", content
    for index, part in enumerate(_list(content)):
        yield from _prefixed(f"contents.{index}.message_content", _content_part(part))
    for index, call in enumerate(_list(message.get("tool_calls"))):
        yield from _prefixed(f"tool_calls.{index}.tool_call", _tool_call(call))


def _content_part(part: Any) -> Iterator[Item]:
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


def _tool_call(call: Any) -> Iterator[Item]:
    if not isinstance(call, dict):
        return
    if isinstance(call.get("id"), str):
        yield "id", call["id"]
    function = call.get("function")
    for key in ("name", "arguments"):
        if isinstance(function, dict) and isinstance(function.get(key), str):
            yield f"function.{key}", function[key]


def _prefixed(prefix: str, items: Iterator[Item]) -> Iterator[Item]:
    for key, value in items:
        yield f"{prefix}.{key}", value


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _clean(items: Iterator[Item]) -> Attributes:
    return {key: valid_text(value) if isinstance(value, str) else value for key, value in items}


def valid_text(text: str) -> str:
    """`text` as UTF-8 can carry it: JSON may spell half of a surrogate pair, protobuf may not."""
    return text.encode("utf-8", "replace").decode("utf-8")
