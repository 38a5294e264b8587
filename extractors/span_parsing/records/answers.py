"""The answers of one call, from all of its records."""

from collections.abc import Sequence
from dataclasses import replace

from extractors.span_parsing.drop_reasons import DropReason, Unreadable
from extractors.span_parsing.recorded import AnswerRecord, RecordedMessage, drop_empty, join_choice
from extractors.span_parsing.records.messages import merge_messages
from extractors.span_parsing.records.same_text import remove_space


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
    if other.calls and not one.calls and not one.says_something:
        return other
    if one.calls and not other.calls and not other.says_something:
        return one
    thoughts_apart = _merge_listed_thoughts(one, other) or _merge_listed_thoughts(other, one)
    return thoughts_apart or merge_messages(one, other)


def _merge_listed_thoughts(plain: RecordedMessage, listed: RecordedMessage) -> RecordedMessage | None:
    """Return the answer where a record lists the thoughts as texts after it (smolagents), else None."""
    texts, whole = listed.texts or (), plain.texts or ()
    if len(whole) != 1 or len(texts) < 2 or remove_space(texts[0]) != remove_space(whole[0]):
        return None
    answer = replace(listed, texts=whole, reasoning=listed.reasoning or "\n".join(texts[1:]))
    return merge_messages(answer, plain)
