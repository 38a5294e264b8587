"""Content parts, as the providers' SDKs and the conventions write them: texts, thoughts, tool calls, results.

OpenAI        {"type": "text", "text": …}          Bedrock   {"text": …}, {"toolUse": …}
Anthropic     {"type": "tool_use", "input": …}     Gemini    {"text": …}, {"functionCall": …}
GenAI         {"type": "text", "content": …}       Vercel    {"type": "tool-call", "toolName": …}
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from extractors.span_parsing.drop_reasons import DropReason, Unreadable, read_each
from extractors.span_parsing.messages.provider_searches import cites_search
from extractors.span_parsing.nested_attributes import parse_json
from extractors.span_parsing.recorded import RecordedCall

TEXT_TYPES = frozenset({"text", "input_text", "output_text", "summary_text"})
THOUGHT_TYPES = frozenset({"reasoning", "thinking", "redacted_thinking", "reasoning_text"})
CALL_TYPES = frozenset({"tool_use", "tool_call", "tool-call", "function_call"})
RESULT_TYPES = frozenset(
    {"tool_result", "tool_call_response", "tool-result", "function_call_output", "function_response"}
)
SILENT_TYPES = frozenset(
    {"refusal", "step-start", "source", "source-url", "tool-approval-request", "tool-approval-response"}
)
"""Parts without anything that was said; a refusal is no answer."""
SERVER_TYPES = re.compile(
    r"server_tool_\w+|(web|file)_search\w*|code_(interpreter|execution)\w*|bash_code_execution\w*|mcp_\w+"
    r"|text_editor_code_execution\w*|web_fetch\w*|image_generation\w*|tool_search\w*|google_search\w*"
)
"""Types of parts and names of calls that belong to tools which the provider runs itself."""
EARLIER_TYPES = frozenset({"item_reference", "compaction", "compaction_summary"})
"""Items that stand for earlier ones which the provider keeps."""
FREE_CALL_TYPES = frozenset({"custom_tool_call", "local_shell_call", "shell_call", "apply_patch_call"})
"""Calls without arguments: a text, a command or a patch is what the tool is given."""
SCREEN_TYPES = frozenset({"computer_call", "computer_call_output"})
"""Items of a model that looks at a screen."""
CALL_KEYS = ("toolUse", "functionCall", "function_call", "tool_use")
RESULT_KEYS = ("toolResult", "functionResponse", "function_response", "tool_result")
SERVER_KEYS = frozenset(
    {"executableCode", "executable_code", "codeExecutionResult", "code_execution_result", "serverToolUse"}
)
RESULT_BLOCK_KEYS = frozenset({"text", "json", "image", "document", "video", "searchResult"})
"""Keys of Bedrock's blocks in what a tool returned."""
TEXT_PART_KEYS = frozenset(
    {"type", "text", "content", "id", "index", "cache_control", "annotations", "meta", "_meta"}
)
MEDIA_KEYS = frozenset({
    "source", "data", "url", "uri", "blob", "base64", "file", "file_id", "file_data", "image", "image_url",
    "input_audio", "mediaType", "media_type", "mimeType", "mime_type", "resource",
})  # fmt: skip
"""Keys that hold the content of a part that is no text."""
SILENT_KEYS = frozenset({"cachePoint", "cache_point", "thoughtSignature", "thought_signature"})


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text."""

    text: str


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of what a reasoning model thought."""

    text: str


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a tool; a text of None is not shown."""

    call_id: str | None
    name: str | None
    text: str | None


Part = Text | Thought | RecordedCall | Result


def read_parts(content: Any) -> list[Part]:
    """Read a message's content: a string, or a list of parts of any provider.

    Raises Unreadable: NOT_TEXT or SERVER_TOOL, whatever else there is, else MALFORMED.
    """
    if content is None:
        return []
    if isinstance(content, str):
        return [Text(content)]
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, list):
        raise Unreadable(DropReason.MALFORMED)
    return read_each(content, _read_part)


def _read_part(part: Any) -> Iterator[Part]:
    if isinstance(part, str):
        yield Text(part)
        return
    if not isinstance(part, dict):
        raise Unreadable(DropReason.MALFORMED)
    if part.get("type") == "tool_call_response" and "result" in part and part["result"] is None:
        # pydantic-ai sends what a tool returned as JSON, and leaves the key out where it is hidden.
        part = {**part, "result": "null"}
    part = {key: value for key, value in part.items() if value is not None}
    if part.get("builtin") is True or part.get("providerExecuted") is True:
        raise Unreadable(DropReason.SERVER_TOOL)
    if cites_search(part):
        raise Unreadable(DropReason.SERVER_TOOL)
    kind = part.get("type", part.get("kind", part.get("block_type")))
    if kind is None:
        yield from _read_untyped(part)
    elif isinstance(kind, str):
        yield from _read_typed(part, kind)
    else:
        raise Unreadable(DropReason.MALFORMED)


def _read_typed(part: dict[str, Any], kind: str) -> Iterator[Part]:
    if kind in TEXT_TYPES:
        yield Text(_read_text(part.get("text", part.get("content", ""))))
    elif kind in THOUGHT_TYPES:
        yield Thought(_read_thought(part))
    elif kind in CALL_TYPES:
        yield from _read_call_part(part)
    elif kind in RESULT_TYPES:
        yield read_result_part(part)
    elif kind not in SILENT_TYPES:
        check_expressible(kind)
        raise Unreadable(DropReason.NOT_TEXT)


def check_expressible(kind: str) -> None:
    """Raise Unreadable for a part, or an item of the Responses API, that chat messages have no form for.

    HISTORY_ELSEWHERE, BROKEN_ARGUMENTS, NOT_TEXT, SERVER_TOOL.
    """
    if kind in EARLIER_TYPES:
        raise Unreadable(DropReason.HISTORY_ELSEWHERE)
    if kind in FREE_CALL_TYPES:
        raise Unreadable(DropReason.BROKEN_ARGUMENTS)
    if kind in SCREEN_TYPES:
        raise Unreadable(DropReason.NOT_TEXT)
    if SERVER_TYPES.fullmatch(kind):
        raise Unreadable(DropReason.SERVER_TOOL)


def _read_untyped(part: dict[str, Any]) -> Iterator[Part]:
    """Read a part that is known by its key, as Bedrock and Gemini write it."""
    if not SERVER_KEYS.isdisjoint(part):
        raise Unreadable(DropReason.SERVER_TOOL)
    if isinstance(call := _find(part, CALL_KEYS), dict):
        yield from _read_call_part(call)
    elif isinstance(result := _find(part, RESULT_KEYS), dict):
        yield read_result_part(result)
    elif "reasoningContent" in part or "reasoning_content" in part:
        yield Thought(_read_bedrock_thought(part.get("reasoningContent", part.get("reasoning_content"))))
    elif "text" in part:
        text = _read_text(part["text"])
        yield Thought(text) if part.get("thought") is True else Text(text)
    elif SILENT_KEYS.isdisjoint(part) and part:
        raise Unreadable(DropReason.NOT_TEXT)


def _find(part: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    return next((part[key] for key in keys if key in part), None)


def _read_text(text: Any) -> str:
    if isinstance(text, dict):
        text = text.get("value")
    if not isinstance(text, str):
        raise Unreadable(DropReason.MALFORMED)
    return text


def _read_thought(part: Mapping[str, Any]) -> str:
    for key in ("thinking", "text", "content", "reasoning"):
        if isinstance(text := part.get(key), str) and not isinstance(parse_json(text), list):
            return text
    written = [*_to_list(part.get("summary")), *_to_list(parse_json(part.get("content")))]
    return "\n".join(piece["text"] for piece in written if isinstance(piece, dict) and "text" in piece)


def _read_bedrock_thought(thought: Any) -> str:
    text = thought.get("reasoningText", thought.get("reasoning_text")) if isinstance(thought, dict) else None
    text = text.get("text") if isinstance(text, dict) else text
    return text if isinstance(text, str) else ""


def _to_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _read_call_part(part: Mapping[str, Any]) -> Iterator[RecordedCall]:
    """Yield the call in a part of any provider; a part that only says that it is one has no name."""
    call = part["tool_call"] if isinstance(part.get("tool_call"), dict) else part
    function = call["function"] if isinstance(call.get("function"), dict) else call
    name = _find(function, ("name", "toolName", "tool_name"))
    if name is None and not function.keys() - {"type"}:
        yield RecordedCall(id=None, name="", arguments=None)
        return
    call_id = _find(call, ("call_id", "id", "toolUseId", "toolCallId", "tool_use_id", "tool_call_id"))
    yield build_call(call_id, name, _find(function, ("arguments", "input", "args")), shown=True)


def build_call(call_id: Any, name: Any, arguments: Any, *, shown: bool) -> RecordedCall:
    """Build a call; `shown` says that the record would show arguments if there were any.

    Raises Unreadable: SERVER_TOOL or NOT_TEXT where its name is that of a tool that a provider runs.
    """
    if not isinstance(name, str) or not name:
        raise Unreadable(DropReason.MALFORMED)
    if name == "computer_call":
        raise Unreadable(DropReason.NOT_TEXT)
    if name.endswith("_call") and SERVER_TYPES.fullmatch(name):
        raise Unreadable(DropReason.SERVER_TOOL)
    if arguments is None:
        text = "{}" if shown else None
    elif isinstance(arguments, str):
        text = arguments if arguments.strip() not in ("", "null") else "{}"
    else:
        text = json.dumps(arguments, ensure_ascii=False)
    return RecordedCall(id=to_optional_text(call_id), name=name, arguments=text)


def read_result_part(part: Mapping[str, Any]) -> Result:
    """Read what a tool returned from a part of any provider."""
    inner = part.get("tool_result")
    part = inner if isinstance(inner, dict) else part
    call_id = _find(part, ("tool_use_id", "toolUseId", "toolCallId", "tool_call_id", "call_id", "id"))
    name = _find(part, ("name", "toolName", "tool_name"))
    for key in ("content", "output"):
        if key in part:
            return Result(to_optional_text(call_id), to_optional_text(name), _read_result_content(part[key]))
    returned = part.get("response", part.get("result"))
    if returned is None:
        # Anthropic leaves out the content of a tool that returned nothing.
        empty = "" if part.get("type") == "tool_result" or "toolUseId" in part else None
        return Result(to_optional_text(call_id), to_optional_text(name), empty)
    text = _read_result_content(returned) if _is_vercel_output(returned) else _read_returned(returned)
    return Result(to_optional_text(call_id), to_optional_text(name), text)


def _is_vercel_output(returned: Any) -> bool:
    return isinstance(returned, dict) and returned.keys() == {"type", "value"}


def _read_returned(returned: Any) -> str:
    """Return what a tool returned as text: as JSON, unless it is a list of parts. Raises Unreadable."""
    if not isinstance(returned, list) or not returned or not all(map(_is_result_part, returned)):
        return _to_text(returned)
    return _join_result_parts(returned)


def _is_result_part(entry: Any) -> bool:
    """Return whether an entry is a part of a result, and not data of its own that a tool returned."""
    if not isinstance(entry, dict):
        return False
    if "type" not in entry:
        return len(entry) == 1 and not RESULT_BLOCK_KEYS.isdisjoint(entry)
    if str(entry["type"]) in TEXT_TYPES:
        return is_text_alone(entry)
    return not MEDIA_KEYS.isdisjoint(entry)


def is_text_alone(part: Mapping[str, Any]) -> bool:
    """Return whether a typed part has nothing but its text: data that a tool returned may look like one."""
    return part.keys() <= TEXT_PART_KEYS


def _join_result_parts(parts: list[dict[str, Any]]) -> str:
    lines = [part["json"] if set(part) == {"json"} else _read_one_text(part) for part in parts]
    return "\n".join(map(_to_text, lines))


def _read_result_content(content: Any) -> str | None:
    """Return a result's text: a string, text parts one to a line, or an object as JSON. Raises Unreadable."""
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, dict) and isinstance(kind := content.get("type"), str):
        # Vercel: {"type": "text" | "json" | "content" | …, "value": …}.
        if kind == "execution-denied":
            return str(content.get("reason") or "")
        if kind.endswith("json"):
            return _to_text(content.get("value"))
        if "value" in content:
            return _read_returned(content["value"])
    if isinstance(content, list) and all(_is_part(entry) for entry in content):
        return _join_result_parts(content)
    return _to_text(content)


def _is_part(entry: Any) -> bool:
    return isinstance(entry, dict) and (
        "type" in entry or "text" in entry or "json" in entry or len(entry) == 1
    )


def _read_one_text(part: Any) -> str:
    return "".join(piece.text for piece in _read_part(part) if isinstance(piece, Text))


def _to_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def to_optional_text(value: Any) -> str | None:
    """Return `value`, None where it is empty. Raises Unreadable where it is no text."""
    if value is None or isinstance(value, str):
        return value or None
    raise Unreadable(DropReason.MALFORMED)
