"""One selected span, read as one call of the model: what it was asked, and what it answered."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from extractors.examples.prompt_keys import to_comparable
from extractors.examples.types import Message
from extractors.phoenix.spans import Span
from extractors.span_parsing.checks.answer_ends import check_told_end, check_untold_end
from extractors.span_parsing.checks.conversation_rules import check_answer, check_prompt
from extractors.span_parsing.checks.cut_texts import check_values_whole
from extractors.span_parsing.checks.storable import check_storable
from extractors.span_parsing.checks.token_counts import check_history_held, check_length
from extractors.span_parsing.conventions import genai, openinference, span_events, vercel
from extractors.span_parsing.conventions.bodies import check_self_contained
from extractors.span_parsing.drop_reasons import DropReason, Unreadable, raise_gravest
from extractors.span_parsing.messages.chat_messages import to_message
from extractors.span_parsing.nested_attributes import get_path, parse_body, parse_json
from extractors.span_parsing.ownership import find_session, is_internal, to_identifier
from extractors.span_parsing.recorded import AnswerRecord, RecordedMessage, RequestRecord
from extractors.span_parsing.records.answers import reconcile_answers
from extractors.span_parsing.records.requests import reconcile_requests
from extractors.values import Value

CHOICE_COUNTS = ("n", "candidate_count", "candidateCount")
REQUEST_READERS = (
    openinference.read_listed_request,
    genai.read_request,
    genai.read_older_request,
    vercel.read_request,
    span_events.read_request,
    openinference.read_body_request,
)
ANSWER_READERS = (
    openinference.read_listed_answer,
    genai.read_answer,
    genai.read_older_answer,
    vercel.read_answer,
    span_events.read_answer,
    openinference.read_body_answer,
)
Read = TypeVar("Read", RequestRecord, AnswerRecord)


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
    """Return the call that `span` traced, or why it cannot be read. Never raises, whatever it holds."""
    calls = _read_choices(span)
    if isinstance(calls, DropReason):
        return calls
    return DropReason.SEVERAL_ANSWERS if _have_different_answers(calls) else calls[0]


def read_alternatives(span: Span) -> tuple[ModelCall, ...]:
    """Return the call once for each choice that it offered, in order; none where all answer alike."""
    calls = _read_choices(span)
    return () if isinstance(calls, DropReason) or not _have_different_answers(calls) else calls


def _have_different_answers(calls: Sequence[ModelCall]) -> bool:
    return len({str(to_comparable(call.response)) for call in calls}) > 1


def _read_choices(span: Span) -> tuple[ModelCall, ...] | DropReason:
    """Return the call once for each answer that was recorded, or why it cannot be read."""
    if is_internal(span):
        return DropReason.INTERNAL
    if span.status == "ERROR":
        return DropReason.FAILED
    try:
        content = _read_content(span)
    except Unreadable as unreadable:
        return unreadable.reason
    except RecursionError:
        return DropReason.MALFORMED
    return tuple(
        ModelCall(
            span_ids=(span.span_id,),
            trace_id=span.trace_id,
            session_id=find_session(span),
            started_at=span.started_at,
            prompt=content.prompt,
            tools=content.tools,
            response=response,
            answered_by=to_identifier(get_path(span.attributes, "learnd.version")),
        )
        for response in content.choices
    )


class _Content(NamedTuple):
    prompt: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...]
    choices: tuple[Message, ...]
    """The answers that were recorded, in the order of their indices."""


def _read_content(span: Span) -> _Content:
    """Read what the model was asked and what it answered, from all records of the call. Raises Unreadable."""
    parameters = _read_parameters(span)
    check_self_contained(parameters)
    check_values_whole(span)
    request = _read_request(span)
    answers = _read_answers(span, parameters)
    end_is_told = check_told_end(span)
    if request is None or not answers:
        missing = DropReason.NO_PROMPT if request is None else DropReason.NO_ANSWER
        nothing = request is None and not answers and genai.is_genai_span(span)
        raise Unreadable(DropReason.CONTENT_ELSEWHERE if nothing else missing)
    prompt = tuple(map(to_message, request.messages))
    check_prompt(prompt)
    check_history_held(span, prompt, request.tools)
    choices = tuple(map(_to_answer, answers))
    for choice in choices:
        if not end_is_told:
            check_untold_end(span, choice.content, parameters)
        check_answer(choice, request.tools)
    if len(choices) == 1:
        check_length(span, *choices)
    check_storable((*prompt, *choices), request.tools)
    return _Content(prompt, request.tools, choices)


def _read_parameters(span: Span) -> dict[str, Any]:
    """Return the parameters of the request, from its body and `llm.invocation_parameters`."""
    written = get_path(span.attributes, "llm.invocation_parameters")
    parsed = [parse_json(written), parse_body(span.attributes, "input")]
    return {key: value for each in parsed if isinstance(each, dict) for key, value in each.items()}


def _read_request(span: Span) -> RequestRecord | None:
    records = _apply_readers(span, REQUEST_READERS)
    if records:
        return reconcile_requests(records)
    plain = openinference.read_plain_request(span)
    return plain and reconcile_requests([plain])


def _read_answers(span: Span, parameters: dict[str, Any]) -> tuple[RecordedMessage, ...]:
    counts = [parameters.get(key) for key in CHOICE_COUNTS]
    counts.append(get_path(span.attributes, "gen_ai.request.choice.count"))
    ends = get_path(span.attributes, "gen_ai.response.finish_reasons")
    counts.append(len(ends) if isinstance(ends, list) else None)
    asked_for = max((count for count in counts if type(count) is int), default=None)
    records = _apply_readers(span, ANSWER_READERS)
    if not records and (plain := openinference.read_plain_answer(span)) is not None:
        records = [plain]
    return reconcile_answers(records, asked_for) if records else ()


def _apply_readers(span: Span, readers: Sequence[Callable[[Span], Read | None]]) -> list[Read]:
    """Return what the readers found.

    Raises the Unreadable of one whose reason decides, or the first where none found anything.
    """
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
    if not found or any(complaint.is_decisive for complaint in complaints):
        raise_gravest(complaints)
    return found


def _to_answer(recorded: RecordedMessage) -> Message:
    if recorded.flaw in (DropReason.REDACTED, DropReason.NOT_WHOLE) and not recorded.calls:
        raise Unreadable(DropReason.NO_ANSWER)
    if recorded.role != "assistant":
        raise Unreadable(DropReason.MALFORMED)
    answer = to_message(recorded)
    if not answer.content.strip() and not answer.tool_calls:
        raise Unreadable(DropReason.CUT_OFF if answer.reasoning else DropReason.NO_ANSWER)
    return answer
