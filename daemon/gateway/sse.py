"""Server-sent events of an OpenAI-compatible stream: cut, renamed, and assembled again.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html; the chunks inside are
OpenAI's `chat.completion.chunk` and `text_completion`.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

from daemon.gateway.deltas import MessageBuilder, keep_objects
from daemon.gateway.limits import MAX_EVENT_BYTES, BeyondLimits, parse_json

_BETWEEN = re.compile(rb"\r?\n\r?\n")
_LONGEST_BETWEEN = 4
_DONE = b"[DONE]"


class EventCutter:
    """Cuts pieces of a stream, as they arrive, into whole events."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the events that `piece` completes, without the blank line after each.

        Raises BeyondLimits where an event does not end within `MAX_EVENT_BYTES`.
        """
        # Only the new end is searched: an event of megabytes comes in thousands of pieces.
        start = max(0, len(self._rest) + 1 - _LONGEST_BETWEEN)
        self._rest += piece
        if not _BETWEEN.search(self._rest, start):
            if len(self._rest) > MAX_EVENT_BYTES:
                raise BeyondLimits(f"has an event that is larger than {MAX_EVENT_BYTES} bytes")
            return []
        *events, rest = _BETWEEN.split(bytes(self._rest))
        self._rest = bytearray(rest)
        return events

    def finish(self) -> list[bytes]:
        """Return the rest of a stream that ends without a blank line, as an event."""
        rest, self._rest = bytes(self._rest).strip(b"\r\n"), bytearray()
        return [rest] if rest else []


def read_object(text: bytes) -> dict[str, Any] | None:
    """Return the JSON object that `text` is, or None. Raises BeyondLimits."""
    try:
        content = parse_json(text)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def read_chunk(event: bytes) -> dict[str, Any] | None:
    """Return the JSON object in an event; None for comments, `[DONE]` and what is not an object.

    Raises BeyondLimits.
    """
    return read_object(_read_data(event))


def parse_object(text: bytes) -> dict[str, Any] | None:
    """Return the JSON object that `text` is; None for anything else, and beyond the limits."""
    try:
        return read_object(text)
    except BeyondLimits:
        return None


def parse_chunk(event: bytes) -> dict[str, Any] | None:
    """Return what `read_chunk` does; None beyond the limits."""
    return parse_object(_read_data(event))


def is_unreadable(event: bytes) -> bool:
    """Return True for an event whose data are neither a JSON object nor `[DONE]`."""
    data = _read_data(event)
    return data not in (b"", _DONE) and parse_object(data) is None


def build_event(chunk: dict[str, Any]) -> bytes:
    """Return the event that carries `chunk`."""
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode()


def is_only_usage(chunk: dict[str, Any]) -> bool:
    """Return True for the last chunk, which `stream_options.include_usage` adds."""
    return chunk.get("choices") == [] and bool(chunk.get("usage"))


def assemble(chunks: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return a stream's chunks as one answer, in the form of an answer in one piece.

    Log probabilities and token ids are left out: lists and objects beside the text and the message.
    """
    answer: dict[str, Any] = {}
    choices: dict[int, _ChoiceBuilder] = {}
    for chunk in chunks:
        answer.update({key: value for key, value in chunk.items() if key != "choices" and value is not None})
        for choice in keep_objects(chunk.get("choices")):
            choices.setdefault(_read_index(choice), _ChoiceBuilder()).add(choice)
    return {
        **answer,
        "choices": [{"index": index, **choice.build()} for index, choice in sorted(choices.items())],
    }


class _ChoiceBuilder:
    """Collects what the chunks say of one choice."""

    def __init__(self) -> None:
        self._plain: dict[str, Any] = {}
        self._texts: list[str] = []
        self._message: MessageBuilder | None = None

    def add(self, choice: dict[str, Any]) -> None:
        # `finish_reason` and what servers add to it, such as vLLM's `stop_reason`.
        plain = {key: value for key, value in choice.items() if isinstance(value, str | int) and value != ""}
        self._plain |= {key: value for key, value in plain.items() if key not in ("index", "text")}
        if isinstance(choice.get("text"), str):
            self._texts.append(choice["text"])
        # Some servers send an answer that they have whole as one chunk with a message in it.
        delta = choice.get("delta") or choice.get("message")
        if isinstance(delta, dict) and delta:
            self._message = self._message or MessageBuilder()
            self._message.add(delta)

    def build(self) -> dict[str, Any]:
        built = dict(self._plain)
        if self._texts:
            built["text"] = "".join(self._texts)
        if self._message is not None:
            built["message"] = self._message.build()
        return built


def _read_data(event: bytes) -> bytes:
    return b"\n".join(line[5:].strip() for line in event.splitlines() if line.startswith(b"data:"))


def _read_index(choice: dict[str, Any]) -> int:
    index = choice.get("index")
    return index if type(index) is int else 0
