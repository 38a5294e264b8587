"""The parts of a protocol, and what the protocols share."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from tests.corpus.said import OfferedTool, SaidAnswer, SaidMessage


@dataclass(frozen=True)
class Request:
    """A request in neutral words."""

    messages: tuple[SaidMessage, ...]
    tools: tuple[OfferedTool, ...] = ()
    streamed: bool = False

    def count_tokens(self) -> int:
        """Tokens of messages and tools, at four characters each, and four more for each."""
        texts = [
            message.text + json.dumps([call.arguments for call in message.calls]) for message in self.messages
        ]
        tools = [json.dumps(asdict(tool)) for tool in self.tools]
        return sum(4 + len(text) // 4 for text in (*texts, *tools))


@dataclass(frozen=True)
class Question:
    """A request in the provider's own words, and what to answer."""

    id: str
    body: dict[str, Any]
    request: Request
    answers: tuple[SaidAnswer, ...]
    """The alternatives."""

    @property
    def answer(self) -> SaidAnswer:
        """The only one. Raises ValueError where there are several."""
        (answer,) = self.answers
        return answer

    def count_answered(self) -> int:
        """Tokens of all alternatives."""
        return sum(answer.count_tokens() for answer in self.answers)


@dataclass(frozen=True)
class Protocol:
    """One provider's protocol; `path` is a pattern that the whole path matches."""

    path: str
    read_request: Callable[[str, dict[str, Any]], Request]
    """Takes path and body. Raises ValueError for what it does not know."""
    write_answer: Callable[[Question], dict[str, Any]]
    write_events: Callable[[Question], Iterable[bytes]]
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
