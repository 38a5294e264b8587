"""One selected span, read as one call of the model: what it was asked, and what it answered."""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from extractors.examples.types import Message
from extractors.phoenix.spans import Span
from extractors.span_parsing import genai, openinference
from extractors.span_parsing.chat_messages import ChatRequest
from extractors.span_parsing.drop_reasons import DropReason, Unreadable
from extractors.span_parsing.nested_attributes import MOST_CHARACTERS, get_path, parse_json
from extractors.values import Value

OWN_KINDS = frozenset({"EVALUATOR", "EXPERIMENT"})
SESSION_KEYS = ("session_id", "thread_id", "conversation_id")
Read = TypeVar("Read")


class ModelCall(Value):
    """One call of the model, whatever convention traced it, once or twice."""

    span_ids: tuple[str, ...]
    """All spans that traced it, outermost first."""
    trace_id: str
    session_id: str | None
    started_at: datetime
    """Start of the newest of its spans, aware UTC."""
    prompt: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()
    response: Message
    answered_by: str | None
    """The adapter version that answered, as the gateway traced it; None when unknown."""


def read_call(span: Span) -> ModelCall | DropReason:
    """The call that `span` traced, or why it cannot be read. Never raises, whatever the attributes hold."""
    if is_internal(span):
        return DropReason.INTERNAL
    if span.status == "ERROR":
        return DropReason.FAILED
    try:
        request, response = _read_request(span), _read_response(span)
        check_storable((*request.prompt, response), request.tools)
    except Unreadable as unreadable:
        return unreadable.reason
    attributes = span.attributes
    return ModelCall(
        span_ids=(span.span_id,),
        trace_id=span.trace_id,
        session_id=find_session(span),
        started_at=span.started_at,
        prompt=request.prompt,
        tools=request.tools,
        response=response,
        answered_by=to_identifier(get_path(attributes, "learnd.version")),
    )


def is_internal(span: Span) -> bool:
    """Return whether learnd itself made this call: such calls never become examples."""
    marks = (
        get_path(span.attributes, "learnd.internal"),
        read_metadata(span.attributes).get("learnd_internal"),
    )
    return span.kind in OWN_KINDS or any(mark in (True, "true") for mark in marks)


def belongs_to_another(span: Span, target: str | None) -> bool:
    """Return whether the gateway answered this for another target than `target` (`tenant/agent`).

    A span joins its caller's trace, and so may lie in another target's project. Without a target nothing
    belongs to another.
    """
    tenant, agent = get_path(span.attributes, "learnd.tenant"), get_path(span.attributes, "learnd.agent")
    return target is not None and tenant is not None and f"{tenant}/{agent}" != target


def find_session(span: Span) -> str | None:
    """The session that `span` names, in an attribute of any convention or in its metadata."""
    metadata = read_metadata(span.attributes)
    candidates = (
        get_path(span.attributes, "session.id"),
        get_path(span.attributes, "gen_ai.conversation.id"),
        *(metadata.get(key) for key in SESSION_KEYS),
    )
    return span.session_id or next((found for each in candidates if (found := to_identifier(each))), None)


def read_metadata(attributes: dict[str, Any]) -> dict[str, Any]:
    """`metadata` as a mapping: Phoenix decodes JSON text, but not when other keys stand under it."""
    try:
        metadata = parse_json(attributes.get("metadata"))
    except Unreadable:
        return {}
    return metadata if isinstance(metadata, dict) else {}


def to_identifier(value: Any) -> str | None:
    """A usable id: text that can be stored, or a whole number written out."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value.isprintable() and value else None


def check_storable(messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> None:
    """Check that messages and tools survive as UTF-8 JSON and are not too long. Raises Unreadable."""
    try:
        said = [message.model_dump() for message in messages]
        text = json.dumps([said, tools], ensure_ascii=False, allow_nan=False)
        text.encode()
        # Tools of any depth can be traced, but not written and read again.
        asked = ChatRequest(prompt=tuple(messages), tools=tuple(tools))
        ChatRequest.model_validate_json(asked.model_dump_json())
    except UnicodeEncodeError:
        raise Unreadable(DropReason.NOT_UNICODE) from None
    except (ValueError, RecursionError):
        raise Unreadable(DropReason.MALFORMED) from None
    if len(text) > MOST_CHARACTERS:
        raise Unreadable(DropReason.TOO_LARGE)


def _read_request(span: Span) -> ChatRequest:
    records = _apply_readers(
        span, (openinference.read_listed_request, genai.read_request, openinference.read_body_request)
    ) or _apply_readers(span, (openinference.read_plain_request,))
    if not records:
        raise Unreadable(DropReason.NO_PROMPT)
    # Tracers drop messages and never add any: of two records of one call, the longer is whole.
    request = max(records, key=lambda record: len(record.prompt))
    if not any(message.content.strip() or message.tool_calls for message in request.prompt):
        raise Unreadable(DropReason.NO_PROMPT)
    return request


def _read_response(span: Span) -> Message:
    readers = [openinference.read_listed_answer, genai.read_answer]
    if "gen_ai" not in span.attributes:
        # For GenAI spans Phoenix itself writes the response's id and model into `output.value`.
        readers.append(openinference.read_value_answer)
    answers = _apply_readers(span, readers)
    if not answers:
        raise Unreadable(DropReason.NO_ANSWER)
    return answers[0]


def _apply_readers(span: Span, readers: Sequence[Callable[[Span], Read | None]]) -> list[Read]:
    """Return what the readers found. Raises the first one's Unreadable where none found anything."""
    found: list[Read] = []
    complaints: list[Unreadable] = []
    for read in readers:
        try:
            record = read(span)
        except Unreadable as complaint:
            complaints.append(complaint)
            continue
        if record is not None:
            found.append(record)
    if complaints and not found:
        raise complaints[0]
    return found
