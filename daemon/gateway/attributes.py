"""One call as OpenInference attributes: request and answer in, flat attributes out.

Specification: https://github.com/Arize-ai/openinference/blob/main/spec/semantic_conventions.md.
`input.value` and `output.value` hold the whole bodies. The other attributes never say something else:
each message, part, call, tool, prompt and choice of a body has its entry, and what OpenInference has no
words for keeps its own type, so that no reader takes it for absent or for text.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from daemon.gateway.apis.api import TracedAnswer, TracedRequest
from daemon.gateway.deltas import read_reasoning, to_arguments

Attributes = dict[str, str | int | bool]
Attribute = tuple[str, str | int | bool]
_UNKNOWN = "unknown"
"""Stands for the type of a part that names none."""
_TEXT_KINDS = frozenset({"text", "refusal", "reasoning", "thinking"})
"""Types of parts that may hold their text under the type's own name."""


def describe_request(request: Mapping[str, Any], told: TracedRequest) -> Attributes:
    """Return the attributes of the agent's `request`, as it was sent, and what it asks."""
    return _replace_invalid_text(_list_request_attributes(request, told))


def describe_answer(answer: Mapping[str, Any], told: TracedAnswer) -> Attributes:
    """Return the attributes of the `answer` (a stream's is assembled first), and what it says."""
    return _replace_invalid_text(_list_answer_attributes(answer, told))


def _list_request_attributes(request: Mapping[str, Any], told: TracedRequest) -> Iterator[Attribute]:
    yield "input.value", _to_json(request)
    yield "input.mime_type", "application/json"
    yield "llm.invocation_parameters", _to_json(told.parameters)
    for index, message in enumerate(told.messages):
        yield from _add_prefix(f"llm.input_messages.{index}.message", _list_message_attributes(message))
    for index, tool in enumerate(told.tools):
        yield f"llm.tools.{index}.tool.json_schema", _to_json(tool)
    for index, prompt in enumerate(told.prompts):
        name, value = ("text", prompt) if isinstance(prompt, str) else ("token_ids", _to_json(prompt))
        yield f"llm.prompts.{index}.prompt.{name}", value


def _list_answer_attributes(answer: Mapping[str, Any], told: TracedAnswer) -> Iterator[Attribute]:
    yield "output.value", _to_json(answer)
    yield "output.mime_type", "application/json"
    for index, choice in enumerate(told.choices):
        if choice.text is not None:
            name = f"llm.choices.{index}.completion"
            yield f"{name}.text", choice.text
        else:
            name = f"llm.output_messages.{index}.message"
            said = {"role": "assistant", **(choice.message or {})}
            yield from _add_prefix(name, _list_message_attributes(said))
        if choice.finish_reason is not None:
            yield f"{name}.finish_reason", choice.finish_reason
            if index == 0:
                yield "llm.finish_reason", choice.finish_reason
    counts = {
        "prompt": told.prompt_tokens,
        "completion": told.completion_tokens,
        "total": told.total_tokens,
    }
    for name, count in counts.items():
        if count is not None:
            yield f"llm.token_count.{name}", count


def _list_message_attributes(message: Any) -> Iterator[Attribute]:
    """Yield a message's attributes; a role that is missing is empty, which no reader accepts."""
    if not isinstance(message, dict):
        message = {"content": [message]}
    role = message.get("role")
    yield "role", role if isinstance(role, str) else ""
    for key in ("name", "tool_call_id"):
        if isinstance(message.get(key), str):
            yield key, message[key]
    content, parts = message.get("content"), _list_parts(message)
    if isinstance(content, str) and not parts:
        yield "content", content
    for index, part in enumerate(parts):
        yield from _add_prefix(f"contents.{index}.message_content", _list_part_attributes(part))
    for index, call in enumerate(_to_list(message.get("tool_calls"))):
        yield from _add_prefix(f"tool_calls.{index}.tool_call", _list_tool_call_attributes(call))
    function = message.get("function_call")
    if isinstance(function, dict):
        name, arguments = function.get("name"), to_arguments(function.get("arguments"))
        yield "function_call_name", name if isinstance(name, str) else ""
        if arguments is not None:
            yield "function_call_arguments_json", arguments


def _list_parts(message: Mapping[str, Any]) -> list[Any]:
    """Return the parts of a message, thoughts first; none where its content is one text and all it says."""
    content, reasoning, refusal = message.get("content"), read_reasoning(message), message.get("refusal")
    beside: list[Any] = []
    if isinstance(refusal, str) and refusal:
        beside.append({"type": "refusal", "refusal": refusal})
    if message.get("audio"):
        beside.append({"type": "audio"})
    beside += _to_list(message.get("images"))
    if isinstance(content, str):
        parts: list[Any] = [{"type": "text", "text": content}] if content and (reasoning or beside) else []
    else:
        parts = _to_list(content) or ([] if content in (None, []) else [content])
    return [*([{"type": "reasoning", "text": reasoning}] if reasoning else []), *parts, *beside]


def _list_part_attributes(part: Any) -> Iterator[Attribute]:
    """Yield a part's type, and its text or its image's address.

    Text, images and thoughts have OpenInference's types; other types stay as they are.
    """
    if isinstance(part, str):
        part = {"type": "text", "text": part}
    elif not isinstance(part, dict):
        part = {}
    kind = _read_kind(part)
    yield "type", {"image_url": "image", "thinking": "reasoning"}.get(kind, kind)
    if (text := _read_part_text(part, kind)) is not None:
        yield "text", text
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, dict) else image
    if kind == "image_url" and isinstance(url, str):
        yield "image.image.url", url


def _read_kind(part: Mapping[str, Any]) -> str:
    """Return the type that a part names; without one, what its only content shows."""
    kind = part.get("type")
    if isinstance(kind, str) and kind:
        return kind
    shown = [key for key in ("text", "image_url") if key in part]
    return shown[0] if len(shown) == 1 else _UNKNOWN


def _read_part_text(part: Mapping[str, Any], kind: str) -> str | None:
    """Return the text of a part; thoughts may be a list of texts."""
    if isinstance(part.get("text"), str):
        return str(part["text"])
    said = part.get(kind) if kind in _TEXT_KINDS else None
    if kind == "thinking" and isinstance(said, list):
        return "".join(each["text"] for each in said if _is_text_part(each))
    return said if isinstance(said, str) else None


def _is_text_part(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("text"), str)


def _list_tool_call_attributes(call: Any) -> Iterator[Attribute]:
    """Yield a call's attributes; a name that is missing is empty, which no reader accepts."""
    call = call if isinstance(call, dict) else {}
    if isinstance(call.get("id"), str):
        yield "id", call["id"]
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    name, arguments = function.get("name"), to_arguments(function.get("arguments"))
    yield "function.name", name if isinstance(name, str) else ""
    if arguments is not None:
        yield "function.arguments", arguments


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
