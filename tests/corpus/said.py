"""A call of the model in neutral words, whatever protocol carried it.

Only the standard library: this runs in the environments of the tracers too.
"""

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class SaidCall:
    """A call of a tool by the model."""

    name: str
    arguments: Any
    """Parsed JSON."""
    id: str | None = None


@dataclass(frozen=True)
class SaidMessage:
    """One message of a request: a tool's result is a message of its own."""

    role: str
    text: str = ""
    calls: tuple[SaidCall, ...] = ()
    answers: str | None = None
    """Id of the call whose result this is."""
    images: int = 0


@dataclass(frozen=True)
class OfferedTool:
    name: str
    description: str | None = None
    parameters: Any = None
    """JSON schema."""


@dataclass(frozen=True)
class SaidAnswer:
    """What the model answers, or the HTTP status with which its provider fails."""

    text: str = ""
    calls: tuple[SaidCall, ...] = ()
    thoughts: str = ""
    cut_off: bool = False
    """The answer ended at the maximum of tokens."""
    error: int | None = None

    def count_tokens(self) -> int:
        """Tokens of the answer, at four characters each."""
        written = self.text + self.thoughts + "".join(json.dumps(call.arguments) for call in self.calls)
        return math.ceil(len(written) / 4)


@dataclass(frozen=True)
class ServedCall:
    """A request that the stand-in got, and the alternatives that it answered."""

    situation: str
    received_at: int
    """Nanoseconds since 1970."""
    streamed: bool
    messages: tuple[SaidMessage, ...]
    tools: tuple[OfferedTool, ...]
    answers: tuple[SaidAnswer, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Return the call without what is empty."""
        return asdict(self, dict_factory=_leave_out_empty)

    @classmethod
    def from_json(cls, written: dict[str, Any]) -> "ServedCall":
        """Return what `to_json` wrote."""
        return cls(
            situation=written["situation"],
            received_at=written["received_at"],
            streamed=written.get("streamed", False),
            messages=tuple(SaidMessage(**_with_calls(each)) for each in written["messages"]),
            tools=tuple(OfferedTool(**each) for each in written.get("tools", ())),
            answers=tuple(SaidAnswer(**_with_calls(each)) for each in written["answers"]),
        )


def _leave_out_empty(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in fields if value or name == "arguments"}


def _with_calls(written: dict[str, Any]) -> dict[str, Any]:
    return {**written, "calls": tuple(SaidCall(**call) for call in written.get("calls", ()))}
