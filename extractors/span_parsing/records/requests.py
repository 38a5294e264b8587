"""The request of one call, from all of its records.

The place of a system prompt that a record keeps apart from the messages is no contradiction.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from extractors.span_parsing.drop_reasons import DropReason, Unreadable
from extractors.span_parsing.recorded import RecordedMessage, RequestRecord
from extractors.span_parsing.records.messages import can_merge, merge_messages
from extractors.span_parsing.records.same_text import is_same_text


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
        if any(record.may_lack_beginning or record.lacks_beginning for record in partial):
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
    merged = [merge_messages(mine, its) for mine, its in zip(turns, other_turns, strict=True)]
    return _merge_system(replace(one, messages=_replace_turns(one, merged)), other)


def _merge_system(one: RequestRecord, other: RequestRecord) -> RequestRecord:
    """Return `one` with the system prompts that both show, in their place. Raises Unreadable."""
    system, other_system = _select_system(one), _select_system(other)
    if not other_system:
        return one
    if system and not is_same_text(_join_texts(system), _join_texts(other_system)):
        raise Unreadable(DropReason.TEXTS_DIFFER)
    if system and (one.system_apart or other.system_apart):
        # A prompt that a record keeps apart stands first.
        return replace(one, messages=(*system, *_drop_system(one)))
    are_aligned = len(_drop_system(one)) == len(_drop_system(other))
    if system and not are_aligned and not (_begins_with_system(one) and _begins_with_system(other)):
        # Midway, places can be compared only where each record shows every turn.
        raise Unreadable(DropReason.HISTORY_DIFFERS)
    if system and are_aligned and len(system) == len(other_system):
        if _find_system_places(one) != _find_system_places(other):
            raise Unreadable(DropReason.HISTORY_DIFFERS)
    elif not system and are_aligned and not other.system_apart:
        return replace(other, messages=_replace_turns(other, _drop_system(one)))
    elif not system:
        return replace(one, messages=(*other_system, *one.messages))
    return one


def _begins_with_system(record: RequestRecord) -> bool:
    """Return whether all system prompts stand before the first turn."""
    places = _find_system_places(record)
    return places == list(range(len(places)))


def _select_system(record: RequestRecord) -> list[RecordedMessage]:
    return [message for message in record.messages if message.role == "system"]


def _drop_system(record: RequestRecord) -> list[RecordedMessage]:
    return [message for message in record.messages if message.role != "system"]


def _find_system_places(record: RequestRecord) -> list[int]:
    return [at for at, message in enumerate(record.messages) if message.role == "system"]


def _join_texts(messages: Sequence[RecordedMessage]) -> str:
    return "\n".join(message.text for message in messages)


def _replace_turns(record: RequestRecord, turns: Sequence[RecordedMessage]) -> tuple[RecordedMessage, ...]:
    remaining = iter(turns)
    return tuple(message if message.role == "system" else next(remaining) for message in record.messages)


def _merge_partial(whole: RequestRecord, partial: RequestRecord) -> RequestRecord:
    """Return `whole` with the system prompt that only `partial` has.

    Raises Unreadable unless what `partial` shows stands in `whole`, which has more only where `partial`
    is known to lack something. Where it does lack something, a system prompt of its own contradicts, too:
    a turn that is called the system's looks like that.
    """
    shown, turns = _drop_system(partial), _drop_system(whole)
    lacks_turns = len(shown) < len(turns)
    if lacks_turns and _select_system(partial) and not _select_system(whole):
        raise Unreadable(DropReason.HISTORY_DIFFERS)
    if lacks_turns and partial.may_lack_beginning:
        # Either its tracer dropped them, or the other record has too many.
        raise Unreadable(DropReason.TRUNCATED)
    if partial.lacks_beginning:
        turns = turns[max(len(turns) - len(shown), 0) :]
    if len(shown) == len(turns):
        for message, turn in zip(shown, turns, strict=True):
            merge_messages(message, turn)
    elif not _is_contained(shown, turns):
        raise Unreadable(DropReason.HISTORY_DIFFERS)
    return _merge_system(whole, partial)


def _is_contained(shown: Sequence[RecordedMessage], turns: Sequence[RecordedMessage]) -> bool:
    """Return whether each message of `shown` is one of `turns`, or stands for several, and none is left."""
    reached = {0}
    for message in shown:
        fits = [message.flaw is None and can_merge(message, turn) for turn in turns]
        reached = {end for start in reached for end in _list_ends(message, turns, fits, start)}
    return len(turns) in reached


def _list_ends(
    message: RecordedMessage, turns: Sequence[RecordedMessage], fits: Sequence[bool], start: int
) -> Iterator[int]:
    """Yield where in `turns` the messages may end that `message` stands for, from `start` on.

    `fits` tells of each turn whether it may be `message` itself.
    """
    if not message.stands_for and message.flaw is None:
        if start < len(turns) and fits[start]:
            yield start + 1
        return
    roles = message.stands_for or {message.role}
    is_mixed = message.flaw is not None or len(message.texts or ()) > 1
    is_found = is_mixed
    for at in range(start, len(turns)):
        if turns[at].role not in roles:
            return
        # Of several results tracers keep the last.
        is_found = is_mixed or fits[at] or (is_found and turns[at].role != "tool")
        if is_found:
            yield at + 1
        if turns[at].role != "tool":
            # Tracers put results of tools into one message, and the words that follow them.
            return


def _reconcile_tools(of_records: Sequence[tuple[dict[str, Any], ...]]) -> tuple[dict[str, Any], ...]:
    """Return the tools of the first record that shows any; the records must name the same ones."""
    shown = [tools for tools in of_records if tools]
    if len({frozenset(tool["function"]["name"] for tool in tools) for tools in shown}) > 1:
        raise Unreadable(DropReason.TOOL_CALLS_DIFFER)
    # A record may leave out what a tool takes.
    return max(shown, key=_count_schemas, default=())


def _count_schemas(tools: Sequence[dict[str, Any]]) -> int:
    return sum("parameters" in tool["function"] for tool in tools)
