"""Server-sent events of an OpenAI-compatible stream: cut, renamed, and assembled again.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html; the chunks inside are
OpenAI's `chat.completion.chunk` and `text_completion`.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

_BETWEEN = re.compile(rb"\r?\n\r?\n")


class EventCutter:
    """Cuts pieces of a stream, as they arrive, into whole events."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the events that `piece` completes, without the blank line after each."""
        *events, self._rest = _BETWEEN.split(self._rest + piece)
        return events

    def finish(self) -> list[bytes]:
        """Return the rest of a stream that ends without a blank line, as an event."""
        rest, self._rest = self._rest.strip(b"\r\n"), b""
        return [rest] if rest else []


def parse_chunk(event: bytes) -> dict[str, Any] | None:
    """Return the JSON object in an event; None for comments, `[DONE]` and what is not an object."""
    data = b"\n".join(line[5:].strip() for line in event.splitlines() if line.startswith(b"data:"))
    try:
        chunk = json.loads(data)
    except ValueError:
        return None
    return chunk if isinstance(chunk, dict) else None


def build_event(chunk: dict[str, Any]) -> bytes:
    """Return the event that carries `chunk`."""
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode()


def is_only_usage(chunk: dict[str, Any]) -> bool:
    """Return True for the last chunk, which `stream_options.include_usage` adds."""
    return chunk.get("choices") == [] and bool(chunk.get("usage"))


def assemble(chunks: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return a stream's chunks as one answer, in the form of an answer in one piece."""
    answer: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        answer.update({key: value for key, value in chunk.items() if key != "choices" and value is not None})
        for delta in _keep_objects(chunk.get("choices")):
            index = _read_index(delta)
            _extend_choice(choices.setdefault(index, {"index": index}), delta)
    for choice in choices.values():
        if "message" in choice:
            _close_tool_calls(choice["message"])
    return {**answer, "choices": [choices[index] for index in sorted(choices)]}


def _extend_choice(choice: dict[str, Any], delta: dict[str, Any]) -> None:
    if delta.get("finish_reason") is not None:
        choice["finish_reason"] = delta["finish_reason"]
    if isinstance(delta.get("text"), str):
        choice["text"] = choice.get("text", "") + delta["text"]
    if isinstance(update := delta.get("delta"), dict):
        message = choice.setdefault("message", {"role": "assistant", "content": ""})
        if isinstance(update.get("role"), str):
            message["role"] = update["role"]
        if isinstance(update.get("content"), str):
            message["content"] += update["content"]
        for call in _keep_objects(update.get("tool_calls")):
            _extend_tool_call(message.setdefault("tool_calls", {}), call)


def _extend_tool_call(calls: dict[int, dict[str, Any]], delta: dict[str, Any]) -> None:
    call = calls.setdefault(
        _read_index(delta), {"type": "function", "function": {"name": "", "arguments": ""}}
    )
    if isinstance(delta.get("id"), str):
        call["id"] = delta["id"]
    function = delta.get("function")
    for part in ("name", "arguments"):
        if isinstance(function, dict) and isinstance(function.get(part), str):
            call["function"][part] += function[part]


def _close_tool_calls(message: dict[str, Any]) -> None:
    if "tool_calls" in message:
        message["tool_calls"] = [call for _, call in sorted(message["tool_calls"].items())]


def _keep_objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _read_index(delta: dict[str, Any]) -> int:
    index = delta.get("index")
    return index if isinstance(index, int) else 0
