"""What a snapshot is made of: chat messages, reviewed items and training examples.

A `ReviewedItem` is one call of the agent with the verdict people gave on it. An
`SFTExample` is what one such item teaches: the same prompt with its gold answer.
"""

from datetime import datetime
from functools import cached_property
from typing import Any, Literal

from extractors.values import Value, content_id

Origin = Literal["telemetry", "synthetic"]
Outcome = Literal["approved", "rejected", "corrected"]


class ToolCall(Value):
    """A call of a tool by the assistant, as OpenAI's chat format writes it."""

    id: str | None = None
    name: str
    arguments: str
    """JSON text, exactly as the model wrote it."""


class Message(Value):
    """One chat message; `tool_call_id` and `name` only on a tool's result."""

    role: str
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None

    def to_chat(self) -> dict[str, Any]:
        """The message as chat templates and OpenAI-compatible servers take it."""
        chat: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            chat["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in self.tool_calls
            ]
        if self.tool_call_id is not None:
            chat["tool_call_id"] = self.tool_call_id
        if self.name is not None:
            chat["name"] = self.name
        return chat


class SFTExample(Value):
    """A prompt and the answer to learn."""

    prompt: tuple[Message, ...]
    completion: Message
    tools: tuple[dict[str, Any], ...] = ()
    """Tool definitions offered to the model, in OpenAI's format."""
    origin: Origin = "telemetry"
    source_span_ids: tuple[str, ...] = ()
    session_id: str | None = None
    prompt_key: str
    """Normalised prompt: two examples with one key must never stand on both sides of a split."""
    started_at: datetime
    """Start of the newest source span, aware UTC."""

    @cached_property
    def id(self) -> str:
        """Content id of prompt, tools and completion."""
        return content_id(
            [[m.model_dump() for m in self.prompt], list(self.tools), self.completion.model_dump()]
        )


class ReviewedItem(Value):
    """One call of the agent, with the verdict that the feedback rules reached on it."""

    prompt: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()
    response: Message
    """What the agent answered in production."""
    outcome: Outcome
    gold: Message | None
    """The approved response or the correction; None for a rejection without correction."""
    source_span_ids: tuple[str, ...]
    trace_id: str
    session_id: str | None = None
    user_id: str | None = None
    prompt_key: str
    started_at: datetime
    answered_by: str | None = None
    """The adapter version that answered, as the gateway traced it; None when unknown."""

    @cached_property
    def id(self) -> str:
        """Content id of prompt, tools, response and gold."""
        return content_id(
            [
                [m.model_dump() for m in self.prompt],
                list(self.tools),
                self.response.model_dump(),
                self.gold.model_dump() if self.gold else None,
            ]
        )

    def to_example(self) -> SFTExample:
        """The item as a training example. Raises ValueError where there is no gold."""
        if self.gold is None:
            raise ValueError(f"item {self.id} was rejected without a correction: there is nothing to learn")
        return SFTExample(
            prompt=self.prompt,
            completion=self.gold,
            tools=self.tools,
            source_span_ids=self.source_span_ids,
            session_id=self.session_id,
            prompt_key=self.prompt_key,
            started_at=self.started_at,
        )
