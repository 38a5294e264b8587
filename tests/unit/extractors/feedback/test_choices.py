"""Tests of verdicts on calls that gave several answers."""

from typing import Any

import pytest

from extractors.dataset.preference_pairs import build_preference_pairs, build_unpaired_preferences
from extractors.feedback.extract import Extraction, extract
from extractors.feedback.rules import FeedbackRules
from extractors.phoenix.spans import Annotation, Span
from extractors.span_parsing.drop_reasons import DropReason
from tests.support.traffic import annotation, correction, openinference, span


def offer(*answers: str, span_id: str = "s1", **changes: Any) -> Span:
    """A call that gave these answers, `n` of them."""
    attributes = openinference(("user", "Sail or motor?"))
    attributes["llm"]["output_messages"] = [
        {"message": {"role": "assistant", "content": answer}} for answer in answers
    ]
    attributes["llm"]["invocation_parameters"] = f'{{"n": {len(answers)}}}'
    return span(span_id, attributes=attributes, **changes)


def extract_choices(
    *annotations: Annotation, answers: tuple[str, ...] = ("sail", "motor", "row"), **rules: Any
) -> Extraction:
    return extract([offer(*answers)], annotations, FeedbackRules(**rules))


def list_judged(found: Extraction) -> list[tuple[str, bool, str]]:
    return [(each.response.content, each.approved, each.judged) for each in found.judged]


def list_pairs(found: Extraction) -> list[tuple[str, str, str]]:
    pairs, _ = build_preference_pairs(found.judged)
    return sorted((pair.chosen.content, pair.rejected.content, pair.preferred_by) for pair in pairs)


def choose(choice: Any, label: str = "approved", **changes: Any) -> Annotation:
    return annotation(label=label, metadata={"choice": choice}, **changes)


@pytest.mark.parametrize(
    "metadata", [{"choice": 1}, {"choice": "1"}, {"response": " motor\n"}, {"choice": 1, "response": "motor"}]
)
def test_a_choice_that_is_named_and_approved_is_preferred_to_those_nobody_approved(
    metadata: dict[str, Any],
) -> None:
    found = extract_choices(annotation(metadata=metadata))
    assert list_judged(found) == [
        ("motor", True, "choice"), ("sail", False, "passed over"), ("row", False, "passed over"),
    ]  # fmt: skip
    assert list_pairs(found) == [("motor", "row", "choice"), ("motor", "sail", "choice")]
    assert (found.items, found.dropped) == ((), {})


def test_a_choice_that_was_passed_over_is_no_vote_against_it() -> None:
    votes = build_unpaired_preferences(extract_choices(choose(1)).judged)
    assert [(vote.completion.content, vote.desirable) for vote in votes] == [("motor", True)]


def test_a_choice_that_is_named_and_rejected_is_worse_than_one_that_is_approved_alone() -> None:
    rejected = extract_choices(choose(0, "rejected"))
    assert list_judged(rejected) == [("sail", False, "choice")]
    assert list_pairs(rejected) == []
    both = extract_choices(choose(0, "rejected"), choose(2, identifier="bob"))
    assert list_pairs(both) == [("row", "motor", "choice"), ("row", "sail", "choice")]


def test_a_choice_that_is_named_and_corrected_gives_both() -> None:
    note = annotation(label="rejected", metadata={"choice": 0, "correction": "swim"})
    found = extract_choices(note)
    assert list_judged(found) == [("sail", False, "choice"), ("swim", True, "correction")]
    assert list_pairs(found) == [("swim", "sail", "correction")]


@pytest.mark.parametrize(
    "note",
    [
        annotation(),
        correction(text="swim"),
        choose(3),
        choose(-1),
        choose(True),
        choose(1.5),
        choose("motor"),
        choose(1, "so-so"),
        annotation(metadata={"response": "swim"}),
        annotation(metadata={"response": "sail", "choice": 1}),
    ],
    ids=["plain", "correction", "beyond", "below", "flag", "fraction", "word", "unknown-label", "another",
         "contradiction"],
)  # fmt: skip
def test_a_verdict_that_names_no_choice_teaches_nothing_and_is_counted(note: Annotation) -> None:
    found = extract_choices(note)
    assert found.judged == ()
    assert found.dropped == {DropReason.SEVERAL_ANSWERS.value: 1}
    assert found.dropped_spans == {DropReason.SEVERAL_ANSWERS.value: ("s1",)}


def test_reviewers_who_disagree_about_a_choice_teach_nothing() -> None:
    found = extract_choices(choose(1), choose(1, "rejected", identifier="bob"))
    assert (found.judged, found.dropped) == ((), {DropReason.DISAGREEMENT.value: 1})


def test_an_index_counts_equal_choices_too() -> None:
    found = extract_choices(choose(2), answers=("sail", "sail", "motor"))
    assert list_pairs(found) == [("motor", "sail", "choice")]
    first = extract_choices(choose(0), answers=("sail", "sail", "motor"))
    assert list_pairs(first) == [("sail", "motor", "choice")]


def test_a_word_about_an_answer_outranks_that_it_was_passed_over() -> None:
    later = span("s2", 1, attributes=openinference(("user", "Sail or motor?"), answer="sail"))
    notes = [choose(1), annotation("s2", annotator_kind="CODE")]
    found = extract([offer("sail", "motor"), later], notes, FeedbackRules())
    assert list_pairs(found) == []
    votes = build_unpaired_preferences(found.judged)
    assert {(vote.completion.content, vote.desirable) for vote in votes} == {("motor", True), ("sail", True)}


def test_a_choice_that_was_passed_over_says_nothing_about_another_call() -> None:
    later = span("s2", 1, attributes=openinference(("user", "Sail or motor?"), answer="fly"))
    found = extract([offer("sail", "motor"), later], [choose(1), annotation("s2")], FeedbackRules())
    assert list_pairs(found) == [("motor", "sail", "choice")]


def test_the_keys_of_metadata_are_settings_and_the_output_space_counts() -> None:
    note = annotation(metadata={"picked": 1})
    assert list_pairs(extract_choices(note, choice_metadata_key="picked")) == [
        ("motor", "row", "choice"),
        ("motor", "sail", "choice"),
    ]
    found = extract([offer("sail", "motor")], [choose(1)], FeedbackRules(), output_space=("sail", "row"))
    assert (found.judged, found.dropped) == ((), {DropReason.OUTSIDE_OUTPUT_SPACE.value: 1})


def test_a_session_with_several_answers_is_incomplete_for_all_that_is_chosen() -> None:
    spans = [
        offer("sail", "motor", session_id="s"),
        span("s2", 1, session_id="s"),
        span("s3", 2, session_id="s"),
    ]
    found = extract(spans, [choose(0), annotation("s", level="session")], FeedbackRules(inherit="last"))
    assert found.conversations == ()
    assert found.dropped[DropReason.INCOMPLETE.value] == 1
