"""Tests of the pairs and votes that feedback makes."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

import pytest

from extractors.dataset.build import ExtraData, build_content
from extractors.dataset.holdout_split import HoldoutRules
from extractors.dataset.preference_pairs import (
    MOST_PAIRS,
    PreferenceDropReason,
    build_preference_pairs,
    build_unpaired_preferences,
)
from extractors.feedback.extract import Extraction
from extractors.feedback.rules import FeedbackRules
from extractors.phoenix.spans import Span
from tests.support.sessions import annotate_call, annotate_session, extract_with, make_session, make_turn
from tests.support.traffic import NOON, correction


def make_question(number: int, question: str, answer: str) -> Span:
    return make_turn(number, [("system", "Help."), ("user", question)], answer)


def list_pairs(found: Extraction) -> list[tuple[str, str, str]]:
    pairs, _ = build_preference_pairs(found.judged, found.conversations)
    return [(pair.chosen.content, pair.rejected.content, pair.preferred_by) for pair in pairs]


def test_a_correction_is_preferred_to_what_it_corrects() -> None:
    found = extract_with([make_question(0, "q", "wrong")], [correction("s0", "right")])
    assert list_pairs(found) == [("right", "wrong", "correction")]


def test_pairs_and_votes_know_the_trace_of_their_call() -> None:
    found = extract_with([make_question(0, "q", "wrong")], [correction("s0", "right")])
    pairs, _ = build_preference_pairs(found.judged, found.conversations)
    made = [*pairs, *build_unpaired_preferences(found.judged)]
    assert len(made) == 3
    assert {each.trace_id for each in made} == {found.items[0].trace_id}


def test_an_approved_answer_is_preferred_to_a_rejected_one_to_the_same_prompt() -> None:
    spans = [make_question(0, "q", "good"), make_question(1, "q", "bad"), make_question(2, "other", "bad")]
    found = extract_with(
        spans, [annotate_call(0, "approved"), annotate_call(1, "rejected"), annotate_call(2, "rejected")]
    )
    assert list_pairs(found) == [("good", "bad", "same prompt")]


def test_candidates_that_annotations_carry_are_compared_with_each_other_and_with_the_answer() -> None:
    notes = [
        annotate_call(0, "approved", identifier="a", metadata={"response": "better"}),
        annotate_call(0, "rejected", identifier="b", metadata={"response": "worse"}),
    ]
    found = extract_with([make_question(0, "q", "said")], notes)
    assert list_pairs(found) == [("better", "worse", "candidate")]
    judged = extract_with(
        [make_question(0, "q", "said")], [*notes, annotate_call(0, "rejected", identifier="c")]
    )
    assert {pair[:2] for pair in list_pairs(judged)} == {("better", "worse"), ("better", "said")}


def test_an_identical_pair_teaches_nothing_and_is_dropped() -> None:
    found = extract_with([make_question(0, "q", "Close the  ticket")], [correction("s0", "close the ticket")])
    pairs, passed = build_preference_pairs(found.judged)
    assert not pairs
    assert passed == {PreferenceDropReason.SAME_ANSWER: 1}


def test_no_prompt_has_many_more_pairs_than_another() -> None:
    spans = [make_question(n, "q", f"bad {n}") for n in range(6)] + [make_question(9, "q", "good")]
    notes = [annotate_call(n, "rejected") for n in range(6)] + [annotate_call(9, "approved")]
    pairs, passed = build_preference_pairs(extract_with(spans, notes).judged)
    assert len(pairs) == MOST_PAIRS
    assert passed == {PreferenceDropReason.ENOUGH: 2}


def test_the_newest_word_on_an_answer_counts() -> None:
    spans = [make_question(0, "q", "x"), make_question(1, "q", "x"), make_question(2, "q", "y")]
    found = extract_with(
        spans, [annotate_call(0, "approved"), annotate_call(1, "rejected"), annotate_call(2, "approved")]
    )
    assert list_pairs(found) == [("y", "x", "same prompt")]
    assert build_preference_pairs(found.judged)[1][PreferenceDropReason.OVERRULED] == 1


@pytest.mark.parametrize("of_people", ["HUMAN", "LLM"])
def test_a_word_on_another_call_counts_by_who_said_it_and_when_not_by_when_the_call_was(
    of_people: str,
) -> None:
    spans = [make_question(0, "q", "x"), make_question(1, "q", "x"), make_question(2, "q", "y")]
    day = {"HUMAN": -1, "LLM": 30}[of_people]
    found = extract_with(
        spans,
        [
            annotate_call(0, "rejected", annotator_kind=of_people, updated_at=NOON + timedelta(days=day)),
            annotate_call(1, "approved", annotator_kind="LLM", identifier="judge"),
            annotate_call(2, "approved"),
        ],
    )
    assert list_pairs(found) == [("y", "x", "same prompt")]
    assert [item.verdict_rank for item in found.items] == [["HUMAN", "LLM"].index(of_people), 1, 0]


def test_every_judged_answer_is_a_vote_those_of_pairs_too() -> None:
    spans = [make_question(0, "q", "a"), make_question(1, "p", "b"), make_question(2, "r", "c")]
    found = extract_with(
        spans, [annotate_call(0, "approved"), annotate_call(1, "rejected"), correction("s2", "d")]
    )
    votes = [(vote.completion.content, vote.desirable) for vote in build_unpaired_preferences(found.judged)]
    assert votes == [("a", True), ("b", False), ("c", False), ("d", True)]


def test_a_dataset_has_a_correction_as_a_pair_and_as_two_votes() -> None:
    spans = [make_question(n, f"question number {n}, what about it?", f"wrong {n}") for n in range(20)]
    found = extract_with(spans, [correction(f"s{n}", f"right {n}") for n in range(20)])
    rules = HoldoutRules(least=1, share=0.1, validation_share=0)
    train = build_content(found, rules, None, ExtraData()).train
    assert len(train.pairs) > 10
    assert Counter(vote.desirable for vote in train.votes) == {
        True: len(train.pairs),
        False: len(train.pairs),
    }


def test_all_good_answers_are_set_against_all_bad_ones_each_as_often_as_any_other() -> None:
    spans = [make_question(n, "q", answer) for n, answer in enumerate(["Yes", "no", "yes", "NO"])]
    found = extract_with(spans, [annotate_call(n, "approved" if n < 2 else "rejected") for n in range(4)])
    assert sorted(pair[:2] for pair in list_pairs(found)) == [("Yes", "NO"), ("no", "yes")]
    assert build_preference_pairs(found.judged)[1] == {PreferenceDropReason.SAME_ANSWER: 2}
    spans = [make_question(n, "q", f"answer {n}") for n in range(5)]
    found = extract_with(spans, [annotate_call(n, "approved" if n < 2 else "rejected") for n in range(5)])
    used = Counter(answer for pair in list_pairs(found) for answer in pair[:2])
    assert used == {"answer 0": 2, "answer 1": 2, "answer 2": 1, "answer 3": 1, "answer 4": 2}


# ---- conversations


def test_conversations_that_began_alike_and_ended_differently_make_a_pair_where_they_part() -> None:
    spans = [*make_session(0, "good", "one", "two"), *make_session(10, "bad", "one", "zwei")]
    found = extract_with(spans, [annotate_session("good", "approved"), annotate_session("bad", "rejected")])
    pairs, _ = build_preference_pairs((), found.conversations)
    [pair] = pairs
    assert [message.content for message in pair.prompt] == ["Help.", "hi", "one", "and 1?"]
    assert (pair.chosen.content, pair.rejected.content, pair.preferred_by) == ("two", "zwei", "session")
    assert pair.source_span_ids == ("s1", "s11")
    assert pair.session_id == "good"


def extract_ended(good: Sequence[Sequence[str]], bad: Sequence[Sequence[str]], *more: Span) -> Extraction:
    """Sessions with these answers, one after the other, which were approved or rejected as a whole."""
    spans, notes = list(more), []
    for number, answers in enumerate([*good, *bad]):
        spans += make_session(10 * number, f"session {number}", *answers)
        notes.append(annotate_session(f"session {number}", "approved" if number < len(good) else "rejected"))
    return extract_with(spans, notes, FeedbackRules(inherit="never"))


def test_conversations_that_part_alike_are_one_pair_and_the_others_are_counted() -> None:
    found = extract_ended([("one", "two")], [("one", "zwei")] * 4)
    pairs, passed = build_preference_pairs((), found.conversations)
    assert [(pair.rejected.content, pair.source_span_ids) for pair in pairs] == [("zwei", ("s1", "s41"))]
    assert passed == {PreferenceDropReason.REPEATED: 3}


def test_conversations_are_compared_wherever_they_part() -> None:
    found = extract_ended(
        [("one", "two"), ("eins", "zwei")], [("one", "deux"), ("eins", "dos"), ("uno", "x")]
    )
    assert sorted(pair[:2] for pair in list_pairs(found)) == [
        ("eins", "uno"), ("one", "uno"), ("two", "deux"), ("zwei", "dos"),
    ]  # fmt: skip


def test_an_answer_that_was_given_in_a_good_conversation_too_did_not_make_another_bad() -> None:
    found = extract_ended([("one", "two"), ("eins", "zwei")], [("eins", "zwei")])
    pairs, passed = build_preference_pairs((), found.conversations)
    assert pairs == []
    assert passed == {PreferenceDropReason.NEVER_PARTED: 1}


def test_what_people_said_of_an_answer_stands_against_what_became_of_the_conversation() -> None:
    found = extract_ended([("one", "two")], [("one", "zwei")])
    judged = {"two": False, "zwei": True}
    for answer, approved in judged.items():
        label = "approved" if approved else "rejected"
        number = {"two": 1, "zwei": 11}[answer]
        noted = extract_with(
            [*make_session(0, "session 0", "one", "two"), *make_session(10, "session 1", "one", "zwei")],
            [annotate_call(number, label)],
        )
        assert not build_preference_pairs(noted.judged, found.conversations)[0]


def test_no_prompt_has_more_pairs_because_both_answers_and_conversations_were_judged() -> None:
    found = extract_ended([(f"good {n}", "x") for n in range(3)], [(f"bad {n}", "x") for n in range(3)])
    answered = [
        make_turn(100 + n, [("system", "Help."), ("user", "hi")], f"{'fine' if n < 3 else 'poor'} {n}")
        for n in range(6)
    ]
    notes = [annotate_call(100 + n, "approved" if n < 3 else "rejected") for n in range(6)]
    pairs, passed = build_preference_pairs(extract_with(answered, notes).judged, found.conversations)
    assert [pair.preferred_by for pair in pairs] == ["same prompt"] * MOST_PAIRS
    assert passed == {PreferenceDropReason.ENOUGH: 5 + 9}


def test_conversations_about_something_else_are_not_compared() -> None:
    spans = [*make_session(0, "good", "one", "two"), *make_session(10, "bad", "one", "zwei", opening="hello")]
    found = extract_with(spans, [annotate_session("good", "approved"), annotate_session("bad", "rejected")])
    assert build_preference_pairs((), found.conversations)[0] == []
