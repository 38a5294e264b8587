"""Records: what one convention says that the model was asked or answered, and what it does not show."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from extractors.span_parsing.drop_reasons import DropReason, Unreadable


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """A tool call as a record shows it."""

    id: str | None
    name: str
    arguments: str | None
    """JSON text; None where the record does not show any."""


@dataclass(frozen=True, slots=True)
class RecordedMessage:
    """A message as a record shows it."""

    role: str
    texts: tuple[str, ...] | None = None
    """The parts of its text, in order."""
    calls: tuple[RecordedCall, ...] = ()
    call_id: str | None = None
    name: str | None = None
    reasoning: str | None = None
    flaw: DropReason | None = None
    """Why the message cannot be read from this record alone; None where it can."""
    stands_for: frozenset[str] = frozenset()
    """Roles of the messages in whose place a tracer may have put this one; empty where it is but one."""

    @property
    def text(self) -> str:
        """The text in one: an answer's parts are pieces of it, other parts stand on lines of their own."""
        return ("" if self.role == "assistant" else "\n").join(self.texts or ())

    @property
    def says_something(self) -> bool:
        return bool(self.text.strip())


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """The request of one call, as one record shows it."""

    messages: tuple[RecordedMessage, ...]
    tools: tuple[dict[str, Any], ...] = ()
    system_apart: bool = False
    """True where the record keeps system prompts apart from the messages, so that their place is not told."""
    may_lack_beginning: bool = False
    """True where the tracer may have dropped the first messages, for the number of attributes."""
    lacks_beginning: bool = False
    """True where the tracer dropped what it had set before the messages, and so some of them, too."""

    @property
    def is_whole(self) -> bool:
        """False where the record does not show all of the messages, or may not."""
        lacking = any(message.flaw or message.stands_for for message in self.messages)
        return not lacking and not self.may_lack_beginning and not self.lacks_beginning


@dataclass(frozen=True, slots=True)
class AnswerRecord:
    """The answer of one call, as one record shows it."""

    messages: tuple[RecordedMessage, ...]
    are_choices: bool | None
    """True where each message is an answer of its own, False where all are one; None where that is untold."""


def join_items(messages: Iterable[RecordedMessage]) -> tuple[RecordedMessage, ...]:
    """Join messages that are items of one assistant turn: a text, thoughts and calls, in any order.

    Two texts stay apart: nothing says that they are one.
    """
    joined: list[RecordedMessage] = []
    for message in messages:
        if joined and _belong_together(joined[-1], message):
            joined[-1] = _join(joined[-1], message)
        else:
            joined.append(message)
    return tuple(joined)


def _belong_together(one: RecordedMessage, next_one: RecordedMessage) -> bool:
    return (
        one.role == next_one.role == "assistant"
        and one.flaw is None
        and next_one.flaw is None
        and not (one.says_something and next_one.says_something)
    )


def _join(one: RecordedMessage, other: RecordedMessage) -> RecordedMessage:
    thoughts = [reasoning for reasoning in (one.reasoning, other.reasoning) if reasoning]
    return replace(
        one if one.says_something else replace(one, texts=other.texts or one.texts),
        calls=one.calls + other.calls,
        reasoning="\n".join(thoughts) or None,
    )


def join_choice(messages: Sequence[RecordedMessage]) -> tuple[RecordedMessage, ...]:
    """Join the items of one answer; more than one message is left where there are several texts.

    Raises Unreadable (SERVER_TOOL) where a tool's result is among them: the provider called the tool.
    """
    if any(message.role == "tool" for message in messages):
        raise Unreadable(DropReason.SERVER_TOOL)
    return join_items(drop_empty(messages))


def drop_empty(messages: Sequence[RecordedMessage]) -> tuple[RecordedMessage, ...]:
    """Leave out messages that say nothing beside others, but not the only one."""
    saying = tuple(message for message in messages if message.flaw != DropReason.NOT_WHOLE)
    return saying or tuple(messages[:1])
