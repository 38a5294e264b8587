"""Tests of the conversations that sessions make."""

from typing import Any

import pytest

from extractors.examples.types import Message
from extractors.feedback.conversations import MOST_ANSWERS
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
from tests.support.traffic import annotation, span


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
        messages = [said.split(": ", 1) for said in asked.split(" | ")]
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


# ---- histories decide


def find_reason(*calls: str) -> str:
    """The one reason for which the session is no conversation."""
    found = extract_session(*calls, rules=FeedbackRules(inherit="all"))
    assert not found.conversations
    [reason] = found.dropped
    assert found.dropped[reason] == 1
    return reason


SUMMARISED = {
    "by-the-user": "u: Summary: hi, one, go, two | u: and? > three",
    "by-the-assistant": "u: hi | a: Summary: one and two | u: and? > three",
    "after-the-first-turn": "u: hi | a: one | u: Summary: go, two | u: and? > three",
    "before-the-last-turn": "u: Summary: hi, one | u: go | a: two | u: and? > three",
    "in-one-message": "u: Earlier we spoke of one and two. And? > three",
    "shortened-in-the-middle": "u: hi | a: two | u: and? > three",
    "an-answer-rewritten": "u: hi | a: one | u: go | a: Two! | u: and? > three",
}


@pytest.mark.parametrize("later", SUMMARISED.values(), ids=SUMMARISED)
def test_a_history_that_was_summarised_or_rewritten_makes_no_conversation(later: str) -> None:
    reason = find_reason("u: hi > one", "u: hi | a: one | u: go > two", later)
    assert reason == DropReason.COMPACTED.value


def test_what_was_said_after_a_summary_is_no_conversation_either() -> None:
    reason = find_reason(
        "u: hi > one",
        "u: hi | a: one | u: go > two",
        "u: Summary: one, two | u: and? > three",
        "u: Summary: one, two | u: and? | a: three | u: then? > four",
    )
    assert reason == DropReason.COMPACTED.value


def test_another_agents_calls_between_those_of_a_conversation_make_none() -> None:
    reason = find_reason("u: plan > P", "u: boats > B", "u: plan | a: P | u: go > Q")
    assert reason == DropReason.INTERLEAVED.value
    forked = find_reason(
        "u: hi > one", "u: hi | a: one | u: A > x", "u: hi | a: one | u: B > y",
        "u: hi | a: one | u: A | a: x | u: A2 > x2", "u: hi | a: one | u: B | a: y | u: B2 > y2",
    )  # fmt: skip
    assert forked == DropReason.INTERLEAVED.value


def test_another_agents_calls_at_the_end_make_no_conversation_either() -> None:
    reason = find_reason("u: hi > one", "u: hi | a: one | u: go > two", "u: a title for this > Greetings")
    assert reason == DropReason.COMPACTED.value


def test_a_message_that_the_user_wrote_anew_takes_the_place_of_the_first() -> None:
    found = extract_session("u: hi > one", "u: hi | a: one | u: go > two", "u: hi | a: one | u: stop > three")
    assert list_texts(found) == ["hi", "one", "stop", "three"]
    assert found.conversations[0].learned == (1, 3)


def test_of_several_answers_to_one_prompt_the_history_shows_which_one_was_taken() -> None:
    found = extract_session("u: hi > one", "u: hi > uno", "u: hi | a: one | u: go > two")
    assert list_texts(found) == ["hi", "one", "go", "two"]
    assert found.conversations[0].learned == (1, 3)


def test_a_history_that_holds_the_last_turns_alone_goes_on_with_the_conversation() -> None:
    asked = ["s: A | u: hi > one", "s: A | u: hi | a: one | u: go > two", "s: A | a: two | u: and? > three"]
    assert list_texts(extract_session(*asked)) == ["A", "hi", "one", "go", "two", "and?", "three"]
    again = extract_session(*asked, "s: A | a: two | u: and? > drei", "u: and? | a: drei | u: then? > vier")
    assert list_texts(again)[5:] == ["and?", "drei", "then?", "vier"]


def test_a_system_message_keeps_its_place_among_what_was_said() -> None:
    one_call = extract_session("s: A | u: hi | a: one | s: Now in verse. | u: go > two")
    assert list_texts(one_call) == ["A", "hi", "one", "Now in verse.", "go", "two"]
    two_calls = extract_session(
        "s: A | u: hi > one", "s: A | u: hi | a: one | s: Now in verse. | u: go > two"
    )
    assert list_texts(two_calls) == ["A", "hi", "one", "Now in verse.", "go", "two"]
    assert two_calls.conversations[0].learned == (2, 5)


def test_a_system_message_that_later_requests_do_not_hold_is_a_change() -> None:
    reason = find_reason("u: hi | s: It is noon. > one", "u: hi | a: one | u: go | s: It is one. > two")
    assert reason == DropReason.SYSTEM_CHANGED.value


def test_examples_with_which_every_request_begins_are_part_of_the_conversation_once() -> None:
    found = extract_session("u: ex | a: EX | u: hi > one", "u: ex | a: EX | u: go > two")
    assert list_texts(found) == ["ex", "EX", "hi", "one", "go", "two"]
    assert found.conversations[0].learned == (3, 5)


def make_call(name: str, call_id: str) -> dict[str, Any]:
    function = {"name": name, "arguments": f'{{"what": "{name}"}}'}
    return {
        "message": {"role": "assistant", "tool_calls": [{"tool_call": {"id": call_id, "function": function}}]}
    }


def make_message(role: str, content: str, call_id: str | None = None) -> dict[str, Any]:
    named = {} if call_id is None else {"tool_call_id": call_id}
    return {"message": {"role": role, "content": content, **named}}


def extract_tool_loop(*asked: tuple[list[Any], Any]) -> Extraction:
    spans = [
        span(
            f"s{n}",
            n,
            attributes={"llm": {"input_messages": prompt, "output_messages": [answer]}},
            session_id="s",
        )
        for n, (prompt, answer) in enumerate(asked)
    ]
    return extract_with(spans, [annotate_session("s", "approved")])


def test_calls_in_turn_of_an_agent_that_sends_the_history_of_one_turn_alone_are_one_conversation() -> None:
    first, second = make_message("user", "hi"), make_message("user", "again")
    call, result = make_call("find", "c1"), make_message("tool", "found", "c1")
    found = extract_tool_loop(
        ([first], call),
        ([first, call, result], make_message("assistant", "one")),
        ([second], make_call("find", "c2")),
        (
            [second, make_call("find", "c2"), make_message("tool", "more", "c2")],
            make_message("assistant", "two"),
        ),
    )
    [conversation] = found.conversations
    assert [message.content for message in conversation.messages] == [
        "hi", "", "found", "one", "again", "", "more", "two",
    ]  # fmt: skip
    assert conversation.learned == (1, 3, 5, 7)


def test_an_agent_that_a_tool_asked_stands_in_no_conversation_of_the_one_that_called_it() -> None:
    asked, call = make_message("user", "plan"), make_call("ask_boats", "c1")
    found = extract_tool_loop(
        ([asked], call),
        ([make_message("user", "boats")], make_message("assistant", "B")),
        ([asked, call, make_message("tool", "B", "c1")], make_message("assistant", "P")),
    )
    assert not found.conversations
    assert found.dropped[DropReason.INTERLEAVED.value] == 1


def test_a_tools_result_that_a_later_request_holds_in_other_words_makes_no_conversation() -> None:
    asked, call = make_message("user", "hi"), make_call("find", "c1")
    said = [asked, call, make_message("tool", "a long list", "c1")]
    cleared = [asked, call, make_message("tool", "[cleared]", "c1"), make_message("assistant", "one")]
    found = extract_tool_loop(
        ([asked], call),
        (said, make_message("assistant", "one")),
        ([*cleared, make_message("user", "go")], make_message("assistant", "two")),
    )
    assert not found.conversations
    assert found.dropped[DropReason.COMPACTED.value] == 1


def test_a_history_that_writes_json_anew_and_names_calls_otherwise_is_the_same_history() -> None:
    asked, call = make_message("user", "hi"), make_call("find", "c1")
    again = make_call("find", "other")
    again["message"]["tool_calls"][0]["tool_call"]["function"]["arguments"] = '{"what":"find"}'
    found = extract_tool_loop(
        ([asked], call),
        ([asked, again, make_message("tool", "found", "other")], make_message("assistant", "one\n")),
        (
            [
                asked, call, make_message("tool", "found", "c1"),
                make_message("assistant", "one"), make_message("user", "go"),
            ],
            make_message("assistant", "two"),
        ),
    )  # fmt: skip
    [conversation] = found.conversations
    assert conversation.learned == (1, 3, 5)


def test_a_session_that_goes_on_before_a_tool_answered_is_no_whole_conversation() -> None:
    found = extract_tool_loop(
        ([make_message("user", "hi")], make_call("find", "c1")),
        ([make_message("user", "go")], make_message("assistant", "two")),
    )
    assert not found.conversations
    assert found.dropped[DropReason.NOT_WHOLE.value] == 1


def test_a_session_with_a_call_whose_answer_was_not_recorded_is_incomplete() -> None:
    spans = make_session(0, "s", "one", "two", history=False)
    silent = span(
        "s7", 7, session_id="s", attributes={"llm": spans[0].attributes["llm"] | {"output_messages": []}}
    )
    found = extract_with([*spans, silent], [annotate_session("s", "approved")])
    assert not found.conversations
    assert found.dropped[DropReason.INCOMPLETE.value] == 1
    above = silent.model_copy(update={"trace_id": "trace-s1"})
    below = spans[1].model_copy(update={"parent_id": "s7"})
    assert extract_with([spans[0], above, below], [annotate_session("s", "approved")]).conversations


@pytest.mark.parametrize("level", ["trace", "root"])
def test_a_turn_that_was_rejected_by_its_trace_or_root_span_is_not_learned(level: str) -> None:
    turns = make_session(0, "s", "one", "two", "three")
    root = span("root", 1, trace_id="trace-s1", session_id="s", selected=False, kind="AGENT", attributes={})
    turns[1] = turns[1].model_copy(update={"parent_id": "root"})
    vote = (
        annotation("trace-s1", "rejected", level="trace")
        if level == "trace"
        else annotation("root", "rejected")
    )
    found = extract_with([*turns, root], [annotate_session("s", "approved"), vote])
    assert found.conversations[0].learned == (2, 6)


def test_a_verdict_on_everything_above_a_conversation_does_not_reject_each_of_its_turns() -> None:
    turns = [
        each.model_copy(update={"trace_id": "t", "parent_id": "root"})
        for each in make_session(0, "s", "one", "two")
    ]
    root = span("root", 0, trace_id="t", session_id="s", selected=False, kind="AGENT", attributes={})
    votes = [annotate_session("s", "approved"), annotation("root", "rejected")]
    found = extract_with([*turns, root], votes, FeedbackRules(inherit="all"))
    assert found.conversations[0].learned == (2, 4)


def test_a_session_with_more_answers_than_a_conversation_can_have_is_not_put_together() -> None:
    # So many that a work growing with the square of the calls would not end.
    answers = [f"answer {number}" for number in range(3000)]
    found = extract_with(make_session(0, "s", *answers, history=False), [annotate_session("s", "approved")])
    assert (found.conversations, found.dropped.get(DropReason.TOO_LARGE.value)) == ((), 1)


def test_a_session_with_as_many_answers_as_a_conversation_can_have_is_put_together() -> None:
    answers = [f"answer {number}" for number in range(MOST_ANSWERS)]
    found = extract_with(make_session(0, "s", *answers, history=False), [annotate_session("s", "approved")])
    assert len(found.conversations[0].learned) == MOST_ANSWERS
