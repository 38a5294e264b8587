"""Server-sent events: cut out of a stream, read, and written.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html; the data of each is JSON.
"""

import re
from collections.abc import Iterable
from typing import Any

from daemon.gateway.limits import MAX_EVENT_BYTES, BeyondLimits, parse_json, write_json

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
        if b"\n" not in piece or not _BETWEEN.search(self._rest, start):
            if len(self._rest) > MAX_EVENT_BYTES:
                raise BeyondLimits(f"has an event that is larger than {MAX_EVENT_BYTES} bytes")
            return []
        text = bytes(self._rest)
        *events, rest = _BETWEEN.split(text) if b"\r" in text else text.split(b"\n\n")
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


def is_named_error(event: bytes) -> bool:
    """Return whether an event has the name `error`, whatever its data is."""
    # Few events hold the word at all.
    return b"error" in event and any(
        line.startswith(b"event:") and line[6:].strip() == b"error" for line in event.splitlines()
    )


def parse_object(text: bytes) -> dict[str, Any] | None:
    """Return the JSON object that `text` is; None for anything else, and beyond the limits."""
    try:
        return read_object(text)
    except BeyondLimits:
        return None


def parse_events(events: Iterable[bytes]) -> tuple[list[dict[str, Any]], bool]:
    """Return the JSON objects in the events of a stream, and whether any event held something else.

    Comments and `[DONE]` are neither.
    """
    chunks: list[dict[str, Any]] = []
    is_damaged = False
    for event in events:
        data = _read_data(event)
        chunk = parse_object(data)
        if chunk is not None:
            chunks.append(chunk)
        elif data not in (b"", _DONE):
            is_damaged = True
    return chunks, is_damaged


def build_event(chunk: dict[str, Any], *, name: str | None = None) -> bytes:
    """Return the event that carries `chunk`, with its name where the API names its events."""
    data = b"data: " + write_json(chunk)
    return data if name is None else b"event: " + name.encode() + b"\n" + data


def replace_data(event: bytes, chunk: dict[str, Any]) -> bytes:
    """Return `event` with `chunk` in place of its data."""
    kept = [line for line in event.splitlines() if not line.startswith(b"data:")]
    return b"\n".join([*kept, build_event(chunk)])


def _read_data(event: bytes) -> bytes:
    return b"\n".join(line[5:].strip() for line in event.splitlines() if line.startswith(b"data:"))
