"""Tests of the conversations that sessions make."""

from typing import Any

import pytest

from extractors.examples.types import Message
from extractors.feedback.extract import Extraction
from extractors.feedback.rules import FeedbackRules
from extractors.span_parsing.drop_reasons import DropReason
from tests.support.sessions import (
    RULES,
    annotate_call,
    annotate_session,
    extract_with,
    make_session,
    make_turn,
)
from tests.support.traffic import span


@pytest.mark.parametrize("history", [True, False])
def test_a_session_is_one_conversation_whether_or_not_the_agent_sends_the_history(history: bool) -> None:
    found = extract_with(
        make_session(0, "s", "one", "two", "three", history=history),
        [annotate_session("s", "approved", score=0.9)],
    )
    [conversation] = found.conversations
    assert [message.content for message in conversation.messages] == [
        "Help.", "hi", "one", "and 1?", "two", "and 2?", "three",
    ]  # fmt: skip
    assert conversation.learned == (2, 4, 6)
    assert (conversation.outcome, conversation.score) == ("approved", 0.9)
    assert len(conversation.trace_ids) == 3


def test_a_turn_that_was_rejected_is_not_learned_from_an_approved_conversation() -> None:
    found = extract_with(
        make_session(0, "s", "one", "two", "three"),
        [annotate_session("s", "approved"), annotate_call(1, "rejected")],
    )
    assert found.conversations[0].learned == (2, 6)


SAID_BY = {"u": "user", "a": "assistant", "s": "system"}


def extract_session(*calls: str, rules: FeedbackRules = RULES) -> Extraction:
    """An approved session of calls, each written as `u: question | a: answer | u: question > answer`."""
    spans = []
    for number, call in enumerate(calls):
        asked, answer = call.split(" > ")
        messages = [said.split(": ") for said in asked.split(" | ")]
        spans.append(make_turn(number, [(SAID_BY[role], text) for role, text in messages], answer, "s"))
    return extract_with(spans, [annotate_session("s", "approved")], rules)


def list_texts(found: Extraction) -> list[str]:
    [conversation] = found.conversations
    return [message.content for message in conversation.messages]


def test_an_answer_that_was_asked_for_again_takes_the_place_of_the_first() -> None:
    found = extract_session(
        "u: hi > one", "u: hi | a: one | u: go > two", "u: hi > uno", "u: hi | a: uno | u: ok > due"
    )
    assert list_texts(found) == ["hi", "uno", "ok", "due"]
    assert found.conversations[0].learned == (1, 3)


def test_what_a_user_says_twice_to_an_agent_that_sends_no_history_was_said_twice() -> None:
    found = extract_session("u: next > one", "u: more > two", "u: next > three")
    assert list_texts(found) == ["next", "one", "more", "two", "next", "three"]


def test_a_session_that_asks_one_question_again_has_one_answer_and_is_no_conversation() -> None:
    assert not extract_session("u: hi > one", "u: hi > uno").conversations
    assert not extract_session("u: hi > one", "u: hi | a: one | u: go > two", "u: hi > uno").conversations
    assert list_texts(extract_session("u: hi > one", "u: hi > uno", rules=FeedbackRules(min_turns=1))) == [
        "hi",
        "uno",
    ]


def test_a_conversation_whose_system_prompt_changed_is_dropped_and_counted() -> None:
    changed = extract_session("s: A | u: hi > one", "s: B | u: hi | a: one | u: go > two")
    assert not changed.conversations
    assert changed.dropped[DropReason.SYSTEM_CHANGED.value] == 1
    assert list_texts(extract_session("s: A | u: hi > one", "u: go > two")) == ["A", "hi", "one", "go", "two"]


def test_a_system_prompt_that_changed_before_an_answer_was_asked_for_again_is_the_one_that_counts() -> None:
    found = extract_session("s: A | u: hi > one", "s: B | u: hi > uno", "s: B | u: hi | a: uno | u: go > due")
    assert list_texts(found) == ["B", "hi", "uno", "go", "due"]


def test_a_corrected_conversation_ends_with_the_correction() -> None:
    note = annotate_session("s", "rejected", metadata={"correction": "zwei"})
    [conversation] = extract_with(make_session(0, "s", "one", "two"), [note]).conversations
    assert conversation.messages[-1] == Message(role="assistant", content="zwei")
    assert (conversation.outcome, conversation.learned) == ("corrected", (2, 4))


def test_sessions_that_are_too_short_or_unjudged_are_no_conversations() -> None:
    spans = [*make_session(0, "short", "one"), *make_session(10, "unjudged", "one", "two")]
    assert not extract_with(spans, [annotate_session("short", "approved")]).conversations


def test_a_session_with_a_call_that_cannot_be_read_is_dropped_and_counted() -> None:
    broken = span(
        "s7", 7, session_id="s", attributes={"llm": {"input_messages": "?"}, "output": {"value": "x"}}
    )
    found = extract_with([*make_session(0, "s", "one", "two"), broken], [annotate_session("s", "approved")])
    assert not found.conversations
    assert found.dropped[DropReason.INCOMPLETE.value] == 1


def test_a_tool_call_and_its_result_are_part_of_the_conversation() -> None:
    call = {"tool_call": {"id": "c1", "function": {"name": "find", "arguments": "{}"}}}
    calling = {"message": {"role": "assistant", "tool_calls": [call]}}
    result = {"message": {"role": "tool", "content": "found", "tool_call_id": "c1"}}
    user = {"message": {"role": "user", "content": "hi"}}
    answer = {"message": {"role": "assistant", "content": "done"}}
    first = {"llm": {"input_messages": [user], "output_messages": [calling]}}
    second = {"llm": {"input_messages": [user, calling, result], "output_messages": [answer]}}
    spans = [
        span("s0", 0, attributes=first, session_id="s"),
        span("s1", 1, attributes=second, session_id="s"),
    ]
    [conversation] = extract_with(spans, [annotate_session("s", "approved")]).conversations
    assert [message.role for message in conversation.messages] == ["user", "assistant", "tool", "assistant"]
    assert conversation.messages[1].tool_calls[0].name == "find"
    assert conversation.learned == (1, 3)


def test_a_tool_call_that_was_asked_for_again_takes_the_place_of_the_first_without_history_too() -> None:
    def make_tool_call(number: int, call_id: str) -> dict[str, Any]:
        call = {"tool_call": {"id": call_id, "function": {"name": "find", "arguments": f'{{"n": {number}}}'}}}
        return {"message": {"role": "assistant", "tool_calls": [call]}}

    user = {"message": {"role": "user", "content": "hi"}}
    result = {"message": {"role": "tool", "content": "found", "tool_call_id": "c2"}}
    asked: list[tuple[list[Any], Any]] = [
        ([user], make_tool_call(1, "c1")),
        ([user], make_tool_call(2, "c2")),
        ([user, make_tool_call(2, "c2"), result], {"message": {"role": "assistant", "content": "done"}}),
    ]
    spans = [
        span(
            f"s{n}",
            n,
            attributes={"llm": {"input_messages": prompt, "output_messages": [answer]}},
            session_id="s",
        )
        for n, (prompt, answer) in enumerate(asked)
    ]
    [conversation] = extract_with(spans, [annotate_session("s", "approved")]).conversations
    assert [message.role for message in conversation.messages] == ["user", "assistant", "tool", "assistant"]
    assert conversation.messages[1].tool_calls[0].arguments == '{"n": 2}'
