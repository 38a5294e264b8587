"""The records of one call, brought together: they fill each other's gaps, and must not contradict each other.

White space, the order of a JSON object's keys and the place of a system prompt that a record keeps
apart are no contradictions.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from extractors.span_parsing.drop_reasons import DropReason, Unreadable
from extractors.span_parsing.messages.parts import Text, read_parts
from extractors.span_parsing.nested_attributes import parse_json
from extractors.span_parsing.records.recorded import (
    AnswerRecord,
    RecordedCall,
    RecordedMessage,
    RequestRecord,
    drop_empty,
    join_choice,
)


def reconcile_requests(records: Sequence[RequestRecord]) -> RequestRecord:
    """Return the request that all of `records` show, from its first record on.

    Raises Unreadable where two contradict each other, or where the prompt is not whole in any.
    """
    _check_nothing_hidden(records)
    whole = [record for record in records if record.is_whole]
    partial = [record for record in records if not record.is_whole]
    if whole:
        request = whole[0]
        for record in whole[1:]:
            request = _merge_requests(request, record)
        for record in partial:
            request = _merge_partial(request, record)
    else:
        request, *others = partial
        for record in others:
            request = _merge_requests(request, record)
        if any(record.may_lack_beginning for record in partial):
            raise Unreadable(DropReason.TRUNCATED)
    return replace(request, tools=_reconcile_tools([record.tools for record in records]))


def _check_nothing_hidden(records: Sequence[RequestRecord]) -> None:
    """Raise Unreadable where a record hides a text, or contradicts itself: no other may tell it then."""
    of_records = [[m.flaw for m in record.messages if m.role != "system"] for record in records]
    if all(set(flaws) == {DropReason.REDACTED} for flaws in of_records):
        raise Unreadable(DropReason.NO_PROMPT)
    flaws = {message.flaw for record in records for message in record.messages}
    for flaw in (DropReason.REDACTED, DropReason.TEXTS_DIFFER):
        if flaw in flaws:
            raise Unreadable(flaw)


def _merge_requests(one: RequestRecord, other: RequestRecord) -> RequestRecord:
    turns, other_turns = _drop_system(one), _drop_system(other)
    if len(turns) != len(other_turns):
        raise Unreadable(DropReason.HISTORY_DIFFERS)
    merged = [_merge_messages(mine, its) for mine, its in zip(turns, other_turns, strict=True)]
    return _merge_system(replace(one, messages=_replace_turns(one, merged)), other)


def _merge_system(one: RequestRecord, other: RequestRecord) -> RequestRecord:
    """Return `one` with the system prompts that both show, in their place. Raises Unreadable."""
    system, other_system = _select_system(one), _select_system(other)
    if not other_system:
        return one
    if system and not is_same_text(_join_texts(system), _join_texts(other_system)):
        raise Unreadable(DropReason.TEXTS_DIFFER)
    in_place = len(_drop_system(one)) == len(_drop_system(other)) and not other.system_apart
    if system and in_place and not one.system_apart and len(system) == len(other_system):
        if _place_system(one) != _place_system(other):
            raise Unreadable(DropReason.HISTORY_DIFFERS)
    elif in_place and (one.system_apart or not system):
        return replace(other, messages=_replace_turns(other, _drop_system(one)))
    elif not system:
        return replace(one, messages=(*other_system, *one.messages))
    return one


def _select_system(record: RequestRecord) -> list[RecordedMessage]:
    return [message for message in record.messages if message.role == "system"]


def _drop_system(record: RequestRecord) -> list[RecordedMessage]:
    return [message for message in record.messages if message.role != "system"]


def _place_system(record: RequestRecord) -> list[int]:
    return [at for at, message in enumerate(record.messages) if message.role == "system"]


def _join_texts(messages: Sequence[RecordedMessage]) -> str:
    return "\n".join(message.text for message in messages)


def _replace_turns(record: RequestRecord, turns: Sequence[RecordedMessage]) -> tuple[RecordedMessage, ...]:
    remaining = iter(turns)
    return tuple(message if message.role == "system" else next(remaining) for message in record.messages)


def _merge_partial(whole: RequestRecord, partial: RequestRecord) -> RequestRecord:
    """Return `whole` with the system prompt that only `partial` has.

    Raises Unreadable unless what `partial` shows stands in `whole`, which has more only where `partial`
    is known to lack something.
    """
    shown, turns = _drop_system(partial), _drop_system(whole)
    if partial.may_lack_beginning:
        turns = turns[max(len(turns) - len(shown), 0) :]
    if len(shown) == len(turns):
        for message, turn in zip(shown, turns, strict=True):
            _merge_messages(message, turn)
    elif not _is_contained(shown, turns):
        raise Unreadable(DropReason.HISTORY_DIFFERS)
    return _merge_system(whole, partial)


def _is_contained(shown: Sequence[RecordedMessage], turns: Sequence[RecordedMessage]) -> bool:
    """Return whether each message of `shown` is one of `turns`, or stands for several, and none is left."""
    reached = {0}
    for message in shown:
        reached = {end for start in reached for end in _list_ends(message, turns, start)}
    return len(turns) in reached


def _list_ends(message: RecordedMessage, turns: Sequence[RecordedMessage], start: int) -> Iterator[int]:
    """Yield where in `turns` the messages may end that `message` stands for, from `start` on."""
    if not message.may_lack_neighbours and message.flaw is None:
        if start < len(turns) and _can_merge(message, turns[start]):
            yield start + 1
        return
    # Several results of tools, and the user's next words, may have become one message.
    roles = {"tool", "user"} if message.role in ("tool", "user") else {message.role}
    is_mixed = message.flaw is not None or len(message.texts or ()) > 1
    for end in range(start + 1, len(turns) + 1):
        if turns[end - 1].role not in roles:
            return
        if is_mixed or any(_can_merge(message, turn) for turn in turns[start:end]):
            yield end


def _can_merge(one: RecordedMessage, other: RecordedMessage) -> bool:
    try:
        _merge_messages(one, other)
    except Unreadable:
        return False
    return True


def _merge_messages(one: RecordedMessage, other: RecordedMessage) -> RecordedMessage:
    """Return one message as two records show it. Raises Unreadable where they contradict each other."""
    if one.flaw != other.flaw and DropReason.REDACTED in (one.flaw, other.flaw):
        raise Unreadable(DropReason.REDACTED)
    if other.flaw is not None:
        return one
    if one.flaw is not None:
        return other
    role = _merge_roles(one.role, other.role)
    if not is_same_text(one.text, other.text):
        raise Unreadable(DropReason.TEXTS_DIFFER)
    if one.call_id and other.call_id and one.call_id != other.call_id:
        raise Unreadable(DropReason.HISTORY_DIFFERS)
    if len(one.calls) != len(other.calls):
        raise Unreadable(DropReason.TOOL_CALLS_DIFFER)
    return replace(
        one,
        role=role,
        calls=tuple(_merge_calls(mine, its) for mine, its in zip(one.calls, other.calls, strict=True)),
        call_id=one.call_id or other.call_id,
        name=one.name or other.name,
        reasoning=one.reasoning or other.reasoning,
    )


def _merge_roles(one: str, other: str) -> str:
    """Return the role that two records tell: some tracers call every tool's result the user's."""
    if one == other:
        return one
    if {one, other} == {"user", "tool"}:
        return "tool"
    raise Unreadable(DropReason.HISTORY_DIFFERS)


def _merge_calls(one: RecordedCall, other: RecordedCall) -> RecordedCall:
    differs = one.name != other.name or bool(one.id and other.id and one.id != other.id)
    arguments = one.arguments if one.arguments is not None else other.arguments
    if differs or not _is_same_json(arguments, other.arguments if other.arguments is not None else arguments):
        raise Unreadable(DropReason.TOOL_CALLS_DIFFER)
    return RecordedCall(id=one.id or other.id, name=one.name, arguments=arguments)


def is_same_text(one: str, other: str) -> bool:
    """Return whether two records' texts are the same but for white space, or the same JSON."""
    return _squeeze(one) == _squeeze(other) or _is_same_json(one, other) or _is_text_of_parts(one, other)


def _squeeze(text: str) -> str:
    return "".join(text.split())


def _is_same_json(one: str | None, other: str | None) -> bool:
    if one == other:
        return True
    parsed, others = _parse_container(one), _parse_container(other)
    return parsed is not None and others is not None and _dump(parsed) == _dump(others)


def _dump(parsed: Any) -> str:
    return json.dumps(parsed, sort_keys=True)


def _parse_container(text: str | None) -> Any:
    parsed = parse_json(text)
    return parsed if isinstance(parsed, dict | list) else None


def _is_text_of_parts(one: str, other: str) -> bool:
    """Return whether one of the texts is the JSON of parts, and the other what they say."""
    for written, said in ((one, other), (other, one)):
        parts = _parse_container(written)
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
            continue
        try:
            texts = [part.text for part in read_parts(parts) if isinstance(part, Text)]
        except Unreadable:
            continue
        if texts and _squeeze("".join(texts)) == _squeeze(said):
            return True
    return False


def _reconcile_tools(of_records: Sequence[tuple[dict[str, Any], ...]]) -> tuple[dict[str, Any], ...]:
    """Return the tools of the first record that shows any; the records must name the same ones."""
    shown = [tools for tools in of_records if tools]
    if len({frozenset(tool["function"]["name"] for tool in tools) for tools in shown}) > 1:
        raise Unreadable(DropReason.TOOL_CALLS_DIFFER)
    # A record may leave out what a tool takes.
    return max(shown, key=_count_schemas, default=())


def _count_schemas(tools: Sequence[dict[str, Any]]) -> int:
    return sum("parameters" in tool["function"] for tool in tools)


def reconcile_answers(records: Sequence[AnswerRecord], asked_for: int | None) -> tuple[RecordedMessage, ...]:
    """Return the answers that all of `records` show: one for each choice of the `asked_for`, if told.

    Raises Unreadable where two records contradict each other.
    """
    records = [replace(record, messages=drop_empty(record.messages)) for record in records]
    told = [len(record.messages) for record in records if record.are_choices is not None]
    several = max([asked_for or 1, *told]) > 1
    answers = [_list_choices(record, several) for record in records]
    if len({len(choices) for choices in answers}) > 1:
        raise Unreadable(DropReason.ANSWERS_DIFFER)
    merged = answers[0]
    for choices in answers[1:]:
        merged = tuple(_merge_answers(one, other) for one, other in zip(merged, choices, strict=True))
    if asked_for is not None and asked_for > len(merged):
        raise Unreadable(DropReason.SEVERAL_ANSWERS)
    return merged


def _list_choices(record: AnswerRecord, several: bool) -> tuple[RecordedMessage, ...]:
    if record.are_choices or len(record.messages) == 1:
        return record.messages
    if several and record.are_choices is None:
        return record.messages
    joined = join_choice(record.messages)
    if len(joined) > 1 and len({message.text.strip() for message in joined}) > 1:
        raise Unreadable(DropReason.SEVERAL_ANSWERS)
    return joined[:1]


def _merge_answers(one: RecordedMessage, other: RecordedMessage) -> RecordedMessage:
    thoughts_apart = _find_thoughts_beside(one, other) or _find_thoughts_beside(other, one)
    return thoughts_apart or _merge_messages(one, other)


def _find_thoughts_beside(plain: RecordedMessage, listed: RecordedMessage) -> RecordedMessage | None:
    """Return the answer where a record lists the thoughts as texts after it (smolagents), else None."""
    texts, whole = listed.texts or (), plain.texts or ()
    if len(whole) != 1 or len(texts) < 2 or _squeeze(texts[0]) != _squeeze(whole[0]):
        return None
    answer = replace(listed, texts=whole, reasoning=listed.reasoning or "\n".join(texts[1:]))
    return _merge_messages(answer, plain)
