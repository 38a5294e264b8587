"""Reviewed traffic, and the five kinds of training examples that are made from it.

Reviewed traffic is a `ReviewedItem` (one call of the model), a `JudgedResponse` (one answer to a
prompt, of several) or a `ReviewedRetrieval` (one search). From these come the examples:

    SFTExample            a prompt and the answer to learn
    PreferencePair        a prompt, a better and a worse answer (DPO)
    UnpairedPreference    a prompt and an answer, thumbs up or down (KTO)
    Triplet               a query, a relevant and an irrelevant document (embeddings)
    Trajectory            a whole conversation, and which of its turns to learn
"""

from datetime import datetime
from functools import cached_property
from typing import Any, Literal

from pydantic import Field

from extractors.values import Value, content_id

Origin = Literal["telemetry", "synthetic"]
Outcome = Literal["approved", "rejected", "corrected"]
JudgedKind = Literal["response", "correction", "candidate", "choice", "passed over"]
"""What an answer is to its call. Of several choices, those are passed over that nobody judged beside one that
was approved: they are worse than that one, and nothing else."""
PreferenceSource = Literal["correction", "same prompt", "candidate", "choice", "session"]


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
    reasoning: str | None = Field(None, exclude_if=lambda reasoning: reasoning is None)
    """What a reasoning model thought before it answered: no part of the answer, and never compared.

    Written only where there is any, so that a message without thoughts keeps its content id.
    """

    def to_chat(self) -> dict[str, Any]:
        """Return the message as chat templates and OpenAI-compatible servers take it."""
        chat: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.reasoning is not None:
            chat["reasoning_content"] = self.reasoning
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


class Example(Value):
    """A training example of any kind: the fields that say where it comes from."""

    origin: Origin = "telemetry"
    source_span_ids: tuple[str, ...] = ()
    trace_id: str | None = Field(None, exclude_if=lambda trace_id: trace_id is None)
    """Trace of the call or search; None where that is not known, and for a conversation (see `trace_ids`)."""
    session_id: str | None = None
    started_at: datetime
    """Start of the newest source span, aware UTC."""


class SFTExample(Example):
    """A prompt and the answer to learn."""

    prompt: tuple[Message, ...]
    completion: Message
    tools: tuple[dict[str, Any], ...] = ()
    """Tool definitions offered to the model, in OpenAI's format."""
    prompt_key: str
    """Normalised prompt. Examples with one key must never stand on both sides of a split."""

    @cached_property
    def id(self) -> str:
        """Content id of prompt, tools and completion."""
        return content_id([_dump(self.prompt), list(self.tools), self.completion.model_dump()])


class PreferencePair(Example):
    """Two answers to one prompt, the better one and the worse one."""

    prompt: tuple[Message, ...]
    chosen: Message
    rejected: Message
    tools: tuple[dict[str, Any], ...] = ()
    prompt_key: str
    preferred_by: PreferenceSource
    """The kind of feedback that prefers one answer."""

    @cached_property
    def id(self) -> str:
        """Content id of prompt, tools and both answers."""
        answers = [self.chosen.model_dump(), self.rejected.model_dump()]
        return content_id([_dump(self.prompt), list(self.tools), answers])


class UnpairedPreference(Example):
    """An answer that people liked or did not like."""

    prompt: tuple[Message, ...]
    completion: Message
    tools: tuple[dict[str, Any], ...] = ()
    prompt_key: str
    desirable: bool

    @cached_property
    def id(self) -> str:
        """Content id of prompt, tools, answer and vote."""
        said = [self.completion.model_dump(), self.desirable]
        return content_id([_dump(self.prompt), list(self.tools), said])


class Document(Value):
    """A document of a retriever's result list. Its id names it; only its text is ever trained on."""

    id: str | None = None
    text: str


class Triplet(Example):
    """A query with a document that answers it and one from the same result list that does not."""

    query: str
    positive: Document
    negative: Document
    prompt_key: str
    """Normalised query."""

    @cached_property
    def id(self) -> str:
        """Content id of the three texts."""
        return content_id([self.query, self.positive.text, self.negative.text])


class Trajectory(Example):
    """A conversation of several turns, tool calls and results included."""

    messages: tuple[Message, ...]
    """From the system prompt to the last answer."""
    learned: tuple[int, ...]
    """Indices in `messages` of the assistant's turns to learn: those that nobody rejected."""
    tools: tuple[dict[str, Any], ...] = ()
    outcome: Outcome
    score: float | None = None
    """The score of the session, where somebody gave one."""
    trace_ids: tuple[str, ...] = ()
    """In order of time."""
    prompt_keys: tuple[str, ...]
    """Normalised prompt of each of the assistant's turns, in order."""
    turn_span_ids: tuple[tuple[str, ...], ...] = ()
    """Spans that traced each of the assistant's turns, in order; none for one that only the history shows."""

    @cached_property
    def id(self) -> str:
        """Content id of messages, tools and the turns to learn."""
        return content_id([_dump(self.messages), list(self.tools), list(self.learned)])


class Judgement(Value):
    """A verdict of people: the rank of those who decided, and the time."""

    started_at: datetime
    verdict_rank: int = 0
    """Place in the rules' precedence of the annotators who decided; 0 outranks all others."""
    verdict_at: datetime | None = None
    """When the newest of them spoke; None where that is not known."""

    @property
    def standing(self) -> tuple[int, datetime]:
        """Sort key: a greater value overrules a lower one. A higher rank, and among equals the newer word."""
        return -self.verdict_rank, self.verdict_at or self.started_at


class ReviewedItem(Judgement):
    """One call of the agent, with the verdict that the feedback rules reached on it."""

    prompt: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()
    response: Message
    """The agent's answer in production."""
    outcome: Outcome
    gold: Message | None
    """The approved response or the correction; None for a rejection without correction."""
    source_span_ids: tuple[str, ...]
    trace_id: str
    session_id: str | None = None
    prompt_key: str
    answered_by: str | None = None
    """The adapter version that answered, as the gateway traced it; None when unknown."""

    @cached_property
    def id(self) -> str:
        """Content id of prompt, tools, response and gold."""
        gold = self.gold.model_dump() if self.gold else None
        return content_id([_dump(self.prompt), list(self.tools), self.response.model_dump(), gold])

    def to_example(self) -> SFTExample:
        """Return the item as a training example. Raises ValueError where there is no gold."""
        if self.gold is None:
            raise ValueError(f"item {self.id} was rejected without a correction: there is nothing to learn")
        return SFTExample(
            prompt=self.prompt,
            completion=self.gold,
            tools=self.tools,
            source_span_ids=self.source_span_ids,
            trace_id=self.trace_id,
            session_id=self.session_id,
            prompt_key=self.prompt_key,
            started_at=self.started_at,
        )


class JudgedResponse(Judgement):
    """One answer to a prompt, the agent's or another (`judged` says which), with people's verdict."""

    prompt: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()
    response: Message
    approved: bool
    judged: JudgedKind
    source_span_ids: tuple[str, ...]
    trace_id: str
    session_id: str | None = None
    prompt_key: str


class JudgedDocument(Document):
    """A document in a result list, with people's verdict on it."""

    relevant: bool | None = None
    """None where nobody said."""


class ReviewedRetrieval(Value):
    """One search of the agent's retriever, in which people called documents relevant or not."""

    query: str
    documents: tuple[JudgedDocument, ...]
    """In the order of the result list."""
    source_span_ids: tuple[str, ...]
    trace_id: str
    session_id: str | None = None
    prompt_key: str
    """Normalised query."""
    started_at: datetime

    @property
    def outcome(self) -> Outcome:
        """Approved where a document is relevant: then the search can be scored."""
        return "approved" if any(document.relevant for document in self.documents) else "rejected"

    @cached_property
    def id(self) -> str:
        """Content id of the query and its documents."""
        return content_id([self.query, _dump(self.documents)])


Reviewed = ReviewedItem | ReviewedRetrieval
"""A call of a language model, or a search of a retriever, that people reviewed."""


AnyExample = SFTExample | PreferencePair | UnpairedPreference | Triplet | Trajectory


class Examples(Value):
    """Training examples by kind."""

    sft: tuple[SFTExample, ...] = ()
    pairs: tuple[PreferencePair, ...] = ()
    votes: tuple[UnpairedPreference, ...] = ()
    triplets: tuple[Triplet, ...] = ()
    trajectories: tuple[Trajectory, ...] = ()

    def join(self, more: "Examples") -> "Examples":
        """Return the examples of both, by kind, these first."""
        return Examples(
            **{kind: (*getattr(self, kind), *getattr(more, kind)) for kind in type(self).model_fields}
        )


def _dump(values: tuple[Value, ...]) -> list[dict[str, Any]]:
    return [value.model_dump() for value in values]
