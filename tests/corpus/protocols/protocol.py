"""The parts of a protocol, and what the protocols share."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.corpus.said import OfferedTool, SaidAnswer, SaidMessage


@dataclass(frozen=True)
class Request:
    """A request in neutral words."""

    messages: tuple[SaidMessage, ...]
    tools: tuple[OfferedTool, ...] = ()
    streamed: bool = False


@dataclass(frozen=True)
class Protocol:
    """One provider's protocol; `path` is a pattern that the whole path matches."""

    path: str
    read_request: Callable[[str, dict[str, Any]], Request]
    """Takes path and body. Raises ValueError for what it does not know."""
    write_answer: Callable[[str, Sequence[SaidAnswer]], dict[str, Any]]
    """Takes an id and the alternatives."""
    write_events: Callable[[str, Sequence[SaidAnswer]], Iterable[bytes]]
    """The same as a stream."""
    write_error: Callable[[int], dict[str, Any]]
    stream_type: str = "text/event-stream"


def write_event(data: Any, name: str | None = None) -> bytes:
    """Return one server-sent event; `data` as JSON, or as it is where it is text."""
    head = f"event: {name}\n" if name else ""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return f"{head}data: {text}\n\n".encode()


def split(text: str) -> list[str]:
    """Return `text` in pieces as a stream has them; joined they are `text` again."""
    return [text[start : start + 9] for start in range(0, len(text), 9)]


def check_keys(value: dict[str, Any], known: set[str]) -> None:
    """Raise ValueError where `value` has keys that are not `known`."""
    if unknown := value.keys() - known:
        raise ValueError(f"the stand-in does not know {sorted(unknown)} in {value}")
