"""Which pairs and votes feedback makes, and which conversations."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from extractors.dataset.build import ExtraData, build_content
from extractors.dataset.holdout_split import HoldoutRules
from extractors.dataset.preference_pairs import (
    MOST_PAIRS,
    PreferenceDropReason,
    build_preference_pairs,
    build_unpaired_preferences,
)
from extractors.examples.types import Message
from extractors.feedback.extract import Extraction, extract
from extractors.feedback.rules import FeedbackRules
from extractors.phoenix.spans import Annotation, Span
from extractors.span_parsing.drop_reasons import DropReason
from tests.unit.traffic import NOON, annotation, correction, openinference, span

RULES = FeedbackRules(inherit="last")


def asked(number: int, question: str, answer: str) -> Span:
    return turn(number, [("system", "Help."), ("user", question)], answer)


def turn(number: int, messages: Sequence[tuple[str, str]], answer: str, session: str | None = None) -> Span:
    return span(f"s{number}", number, attributes=openinference(*messages, answer=answer), session_id=session)


def verdict(number: int, label: str, **changes: Any) -> Annotation:
    return annotation(f"s{number}", label, **changes)


def extracted(spans: list[Span], annotations: list[Annotation], rules: FeedbackRules = RULES) -> Extraction:
    return extract(spans, annotations, rules)


def pairs_of(found: Extraction) -> list[tuple[str, str, str]]:
    pairs, _ = build_preference_pairs(found.judged, found.conversations)
    return [(pair.chosen.content, pair.rejected.content, pair.preferred_by) for pair in pairs]


def test_a_correction_is_preferred_to_what_it_corrects() -> None:
    found = extracted([asked(0, "q", "wrong")], [correction("s0", "right")])
    assert pairs_of(found) == [("right", "wrong", "correction")]


def test_an_approved_answer_is_preferred_to_a_rejected_one_to_the_same_prompt() -> None:
    spans = [asked(0, "q", "good"), asked(1, "q", "bad"), asked(2, "other", "bad")]
    found = extracted(spans, [verdict(0, "approved"), verdict(1, "rejected"), verdict(2, "rejected")])
    assert pairs_of(found) == [("good", "bad", "same prompt")]


def test_candidates_that_annotations_carry_are_compared_with_each_other_and_with_the_answer() -> None:
    notes = [
        verdict(0, "approved", identifier="a", metadata={"response": "better"}),
        verdict(0, "rejected", identifier="b", metadata={"response": "worse"}),
    ]
    found = extracted([asked(0, "q", "said")], notes)
    assert pairs_of(found) == [("better", "worse", "candidate")]
    judged = extracted([asked(0, "q", "said")], [*notes, verdict(0, "rejected", identifier="c")])
    assert {pair[:2] for pair in pairs_of(judged)} == {("better", "worse"), ("better", "said")}


def test_an_identical_pair_teaches_nothing_and_is_dropped() -> None:
    found = extracted([asked(0, "q", "Close the  ticket")], [correction("s0", "close the ticket")])
    pairs, passed = build_preference_pairs(found.judged)
    assert not pairs
    assert passed == {PreferenceDropReason.SAME_ANSWER: 1}


def test_no_prompt_has_many_more_pairs_than_another() -> None:
    spans = [asked(n, "q", f"bad {n}") for n in range(6)] + [asked(9, "q", "good")]
    notes = [verdict(n, "rejected") for n in range(6)] + [verdict(9, "approved")]
    pairs, passed = build_preference_pairs(extracted(spans, notes).judged)
    assert len(pairs) == MOST_PAIRS
    assert passed == {PreferenceDropReason.ENOUGH: 2}


def test_the_newest_word_on_an_answer_counts() -> None:
    spans = [asked(0, "q", "x"), asked(1, "q", "x"), asked(2, "q", "y")]
    found = extracted(spans, [verdict(0, "approved"), verdict(1, "rejected"), verdict(2, "approved")])
    assert pairs_of(found) == [("y", "x", "same prompt")]
    assert build_preference_pairs(found.judged)[1][PreferenceDropReason.OVERRULED] == 1


@pytest.mark.parametrize("of_people", ["HUMAN", "LLM"])
def test_a_word_on_another_call_counts_by_who_said_it_and_when_not_by_when_the_call_was(
    of_people: str,
) -> None:
    spans = [asked(0, "q", "x"), asked(1, "q", "x"), asked(2, "q", "y")]
    day = {"HUMAN": -1, "LLM": 30}[of_people]
    found = extracted(
        spans,
        [
            verdict(0, "rejected", annotator_kind=of_people, updated_at=NOON + timedelta(days=day)),
            verdict(1, "approved", annotator_kind="LLM", identifier="judge"),
            verdict(2, "approved"),
        ],
    )
    assert pairs_of(found) == [("y", "x", "same prompt")]
    assert [item.verdict_rank for item in found.items] == [["HUMAN", "LLM"].index(of_people), 1, 0]


def test_every_judged_answer_is_a_vote_those_of_pairs_too() -> None:
    spans = [asked(0, "q", "a"), asked(1, "p", "b"), asked(2, "r", "c")]
    found = extracted(spans, [verdict(0, "approved"), verdict(1, "rejected"), correction("s2", "d")])
    votes = [(vote.completion.content, vote.desirable) for vote in build_unpaired_preferences(found.judged)]
    assert votes == [("a", True), ("b", False), ("c", False), ("d", True)]


def test_a_dataset_has_a_correction_as_a_pair_and_as_two_votes() -> None:
    spans = [asked(n, f"question number {n}, what about it?", f"wrong {n}") for n in range(20)]
    found = extracted(spans, [correction(f"s{n}", f"right {n}") for n in range(20)])
    rules = HoldoutRules(least=1, share=0.1, validation_share=0)
    train = build_content(found, rules, None, ExtraData()).train
    assert len(train.pairs) > 10
    assert Counter(vote.desirable for vote in train.votes) == {
        True: len(train.pairs),
        False: len(train.pairs),
    }


def test_all_good_answers_are_set_against_all_bad_ones_each_as_often_as_any_other() -> None:
    spans = [asked(n, "q", answer) for n, answer in enumerate(["Yes", "no", "yes", "NO"])]
    found = extracted(spans, [verdict(n, "approved" if n < 2 else "rejected") for n in range(4)])
    assert sorted(pair[:2] for pair in pairs_of(found)) == [("Yes", "NO"), ("no", "yes")]
    assert build_preference_pairs(found.judged)[1] == {PreferenceDropReason.SAME_ANSWER: 2}
    spans = [asked(n, "q", f"answer {n}") for n in range(5)]
    found = extracted(spans, [verdict(n, "approved" if n < 2 else "rejected") for n in range(5)])
    used = Counter(answer for pair in pairs_of(found) for answer in pair[:2])
    assert used == {"answer 0": 2, "answer 1": 2, "answer 2": 1, "answer 3": 1, "answer 4": 2}


# ---- conversations


def talk(start: int, session: str, *answers: str, history: bool = True, opening: str = "hi") -> list[Span]:
    """A session of several turns, each in a trace of its own."""
    spans: list[Span] = []
    said: list[tuple[str, str]] = []
    for number, answer in enumerate(answers):
        said.append(("user", opening if number == 0 else f"and {number}?"))
        sent = said if history else said[-1:]
        spans.append(turn(start + number, [("system", "Help."), *sent], answer, session))
        said.append(("assistant", answer))
    return spans


def about(session: str, label: str | None, **changes: Any) -> Annotation:
    return annotation(session, label, level="session", **changes)


@pytest.mark.parametrize("history", [True, False])
def test_a_session_is_one_conversation_whether_or_not_the_agent_sends_the_history(history: bool) -> None:
    found = extracted(
        talk(0, "s", "one", "two", "three", history=history), [about("s", "approved", score=0.9)]
    )
    [conversation] = found.conversations
    assert [message.content for message in conversation.messages] == [
        "Help.", "hi", "one", "and 1?", "two", "and 2?", "three",
    ]  # fmt: skip
    assert conversation.learned == (2, 4, 6)
    assert (conversation.outcome, conversation.score) == ("approved", 0.9)
    assert len(conversation.trace_ids) == 3


def test_a_turn_that_was_rejected_is_not_learned_from_an_approved_conversation() -> None:
    found = extracted(talk(0, "s", "one", "two", "three"), [about("s", "approved"), verdict(1, "rejected")])
    assert found.conversations[0].learned == (2, 6)


SAID_BY = {"u": "user", "a": "assistant", "s": "system"}


def session(*calls: str, rules: FeedbackRules = RULES) -> Extraction:
    """An approved session of calls, each written as `u: question | a: answer | u: question > answer`."""
    spans = []
    for number, call in enumerate(calls):
        asked, answer = call.split(" > ")
        messages = [said.split(": ") for said in asked.split(" | ")]
        spans.append(turn(number, [(SAID_BY[role], text) for role, text in messages], answer, "s"))
    return extracted(spans, [about("s", "approved")], rules)


def spoken(found: Extraction) -> list[str]:
    [conversation] = found.conversations
    return [message.content for message in conversation.messages]


def test_an_answer_that_was_asked_for_again_takes_the_place_of_the_first() -> None:
    found = session(
        "u: hi > one", "u: hi | a: one | u: go > two", "u: hi > uno", "u: hi | a: uno | u: ok > due"
    )
    assert spoken(found) == ["hi", "uno", "ok", "due"]
    assert found.conversations[0].learned == (1, 3)


def test_what_a_user_says_twice_to_an_agent_that_sends_no_history_was_said_twice() -> None:
    found = session("u: next > one", "u: more > two", "u: next > three")
    assert spoken(found) == ["next", "one", "more", "two", "next", "three"]


def test_a_session_that_asks_one_question_again_has_one_answer_and_is_no_conversation() -> None:
    assert not session("u: hi > one", "u: hi > uno").conversations
    assert not session("u: hi > one", "u: hi | a: one | u: go > two", "u: hi > uno").conversations
    assert spoken(session("u: hi > one", "u: hi > uno", rules=FeedbackRules(min_turns=1))) == ["hi", "uno"]


def test_a_conversation_whose_system_prompt_changed_is_dropped_and_counted() -> None:
    changed = session("s: A | u: hi > one", "s: B | u: hi | a: one | u: go > two")
    assert not changed.conversations
    assert changed.dropped[DropReason.SYSTEM_CHANGED.value] == 1
    assert spoken(session("s: A | u: hi > one", "u: go > two")) == ["A", "hi", "one", "go", "two"]


def test_a_system_prompt_that_changed_before_an_answer_was_asked_for_again_is_the_one_that_counts() -> None:
    found = session("s: A | u: hi > one", "s: B | u: hi > uno", "s: B | u: hi | a: uno | u: go > due")
    assert spoken(found) == ["B", "hi", "uno", "go", "due"]


def test_a_corrected_conversation_ends_with_the_correction() -> None:
    note = about("s", "rejected", metadata={"correction": "zwei"})
    [conversation] = extracted(talk(0, "s", "one", "two"), [note]).conversations
    assert conversation.messages[-1] == Message(role="assistant", content="zwei")
    assert (conversation.outcome, conversation.learned) == ("corrected", (2, 4))


def test_sessions_that_are_too_short_or_unjudged_are_no_conversations() -> None:
    spans = [*talk(0, "short", "one"), *talk(10, "unjudged", "one", "two")]
    assert not extracted(spans, [about("short", "approved")]).conversations


def test_a_session_with_a_call_that_cannot_be_read_is_dropped_and_counted() -> None:
    broken = span(
        "s7", 7, session_id="s", attributes={"llm": {"input_messages": "?"}, "output": {"value": "x"}}
    )
    found = extracted([*talk(0, "s", "one", "two"), broken], [about("s", "approved")])
    assert not found.conversations
    assert found.dropped[DropReason.INCOMPLETE.value] == 1


def test_conversations_that_began_alike_and_ended_differently_make_a_pair_where_they_part() -> None:
    spans = [*talk(0, "good", "one", "two"), *talk(10, "bad", "one", "zwei")]
    found = extracted(spans, [about("good", "approved"), about("bad", "rejected")])
    pairs, _ = build_preference_pairs((), found.conversations)
    [pair] = pairs
    assert [message.content for message in pair.prompt] == ["Help.", "hi", "one", "and 1?"]
    assert (pair.chosen.content, pair.rejected.content, pair.preferred_by) == ("two", "zwei", "session")
    assert pair.source_span_ids == ("s1", "s11")
    assert pair.session_id == "good"


def ended(good: Sequence[Sequence[str]], bad: Sequence[Sequence[str]], *more: Span) -> Extraction:
    """Sessions with these answers, one after the other, which were approved or rejected as a whole."""
    spans, notes = list(more), []
    for number, answers in enumerate([*good, *bad]):
        spans += talk(10 * number, f"session {number}", *answers)
        notes.append(about(f"session {number}", "approved" if number < len(good) else "rejected"))
    return extracted(spans, notes, FeedbackRules(inherit="never"))


def test_conversations_that_part_alike_are_one_pair_and_the_others_are_counted() -> None:
    found = ended([("one", "two")], [("one", "zwei")] * 4)
    pairs, passed = build_preference_pairs((), found.conversations)
    assert [(pair.rejected.content, pair.source_span_ids) for pair in pairs] == [("zwei", ("s1", "s41"))]
    assert passed == {PreferenceDropReason.REPEATED: 3}


def test_conversations_are_compared_wherever_they_part() -> None:
    found = ended([("one", "two"), ("eins", "zwei")], [("one", "deux"), ("eins", "dos"), ("uno", "x")])
    assert sorted(pair[:2] for pair in pairs_of(found)) == [
        ("eins", "uno"), ("one", "uno"), ("two", "deux"), ("zwei", "dos"),
    ]  # fmt: skip


def test_an_answer_that_was_given_in_a_good_conversation_too_did_not_make_another_bad() -> None:
    found = ended([("one", "two"), ("eins", "zwei")], [("eins", "zwei")])
    pairs, passed = build_preference_pairs((), found.conversations)
    assert pairs == []
    assert passed == {PreferenceDropReason.NEVER_PARTED: 1}


def test_what_people_said_of_an_answer_stands_against_what_became_of_the_conversation() -> None:
    found = ended([("one", "two")], [("one", "zwei")])
    judged = {"two": False, "zwei": True}
    for answer, approved in judged.items():
        label = "approved" if approved else "rejected"
        number = {"two": 1, "zwei": 11}[answer]
        noted = extracted(
            [*talk(0, "session 0", "one", "two"), *talk(10, "session 1", "one", "zwei")],
            [verdict(number, label)],
        )
        assert not build_preference_pairs(noted.judged, found.conversations)[0]


def test_no_prompt_has_more_pairs_because_both_answers_and_conversations_were_judged() -> None:
    found = ended([(f"good {n}", "x") for n in range(3)], [(f"bad {n}", "x") for n in range(3)])
    answered = [
        turn(100 + n, [("system", "Help."), ("user", "hi")], f"{'fine' if n < 3 else 'poor'} {n}")
        for n in range(6)
    ]
    notes = [verdict(100 + n, "approved" if n < 3 else "rejected") for n in range(6)]
    pairs, passed = build_preference_pairs(extracted(answered, notes).judged, found.conversations)
    assert [pair.preferred_by for pair in pairs] == ["same prompt"] * MOST_PAIRS
    assert passed == {PreferenceDropReason.ENOUGH: 5 + 9}


def test_conversations_about_something_else_are_not_compared() -> None:
    spans = [*talk(0, "good", "one", "two"), *talk(10, "bad", "one", "zwei", opening="hello")]
    found = extracted(spans, [about("good", "approved"), about("bad", "rejected")])
    assert build_preference_pairs((), found.conversations)[0] == []


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
    [conversation] = extracted(spans, [about("s", "approved")]).conversations
    assert [message.role for message in conversation.messages] == ["user", "assistant", "tool", "assistant"]
    assert conversation.messages[1].tool_calls[0].name == "find"
    assert conversation.learned == (1, 3)


def test_a_tool_call_that_was_asked_for_again_takes_the_place_of_the_first_without_history_too() -> None:
    def calling(number: int, call_id: str) -> dict[str, Any]:
        call = {"tool_call": {"id": call_id, "function": {"name": "find", "arguments": f"[{number}]"}}}
        return {"message": {"role": "assistant", "tool_calls": [call]}}

    user = {"message": {"role": "user", "content": "hi"}}
    result = {"message": {"role": "tool", "content": "found", "tool_call_id": "c2"}}
    asked: list[tuple[list[Any], Any]] = [
        ([user], calling(1, "c1")),
        ([user], calling(2, "c2")),
        ([user, calling(2, "c2"), result], {"message": {"role": "assistant", "content": "done"}}),
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
    [conversation] = extracted(spans, [about("s", "approved")]).conversations
    assert [message.role for message in conversation.messages] == ["user", "assistant", "tool", "assistant"]
    assert conversation.messages[1].tool_calls[0].arguments == "[2]"
