"""One message as two records show it: they fill each other's gaps, and must not contradict each other."""

from dataclasses import replace

from extractors.span_parsing.drop_reasons import DropReason, Unreadable
from extractors.span_parsing.recorded import RecordedCall, RecordedMessage
from extractors.span_parsing.records.same_text import is_same_json, is_same_text, remove_space


def merge_messages(one: RecordedMessage, other: RecordedMessage) -> RecordedMessage:
    """Return one message as two records show it. Raises Unreadable where they contradict each other."""
    if one.flaw != other.flaw and DropReason.REDACTED in (one.flaw, other.flaw):
        raise Unreadable(DropReason.REDACTED)
    if other.flaw is not None:
        return one
    if one.flaw is not None:
        return other
    if _holds_thoughts_of(one, other):
        return other
    if _holds_thoughts_of(other, one):
        return one
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


def _holds_thoughts_of(one: RecordedMessage, other: RecordedMessage) -> bool:
    """Return whether the text of `one` is the thoughts and the text of `other`, as some tracers join them."""
    joined = (other.reasoning or "") + other.text
    return bool(other.reasoning) and one.reasoning is None and remove_space(one.text) == remove_space(joined)


def can_merge(one: RecordedMessage, other: RecordedMessage) -> bool:
    """Return whether two records of a message do not contradict each other."""
    try:
        merge_messages(one, other)
    except Unreadable:
        return False
    return True


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
    if differs or not is_same_json(arguments, other.arguments if other.arguments is not None else arguments):
        raise Unreadable(DropReason.TOOL_CALLS_DIFFER)
    return RecordedCall(id=one.id or other.id, name=one.name, arguments=arguments)
