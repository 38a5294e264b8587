"""What a base model wrote by itself is screened for repetition, language and length."""

import pytest

from trainers.replay.screening import find_answer_flaw, find_question_flaw, is_repetitive, normalise

QUESTION = "What is the best way to keep basil fresh for a week?"
ANSWER = "Put the stems into a glass of water and cover the leaves loosely with a bag."


def test_a_question_and_an_answer_that_read_well_are_kept() -> None:
    assert find_question_flaw(QUESTION, (), ended=True) is None
    assert find_answer_flaw(QUESTION, ANSWER) is None


@pytest.mark.parametrize(
    ("question", "ended", "flaw"),
    [
        (QUESTION, False, "does not end"),
        ("Hi.", True, "too short"),
        ("0-0-0 12345 !! 67890 ??", True, "no words"),
        ("why why why why why why why why why why", True, "repeats itself"),
        (f"  {QUESTION.upper()} ", True, "there already"),
    ],
)
def test_a_question_of_no_use_is_left_out_with_its_reason(question: str, ended: bool, flaw: str) -> None:
    assert flaw in str(find_question_flaw(question, {normalise(QUESTION)}, ended=ended))


@pytest.mark.parametrize(
    ("answer", "flaw"),
    [
        ("", "empty"),
        ("store" * 20, "repeats itself"),
        (QUESTION.lower(), "the question again"),
        (
            "Stellen Sie die Stiele in ein Glas Wasser und decken Sie die Blätter locker mit einer Tüte ab.",
            "another language",
        ),
        ("把茎放进一杯水里、用袋子松松地盖住叶子。", "another language"),
    ],
)
def test_an_answer_of_no_use_is_left_out_with_its_reason(answer: str, flaw: str) -> None:
    assert flaw in str(find_answer_flaw(QUESTION, answer))


def test_repetition_is_found_in_scripts_without_spaces() -> None:
    assert is_repetitive("今天天气很好我们去公园散步吧" * 4)
    assert not is_repetitive("今天天气很好、我们去公园散步吧。明天可能下雨、所以最好带上雨伞再出门。")


def test_a_list_with_items_that_begin_alike_is_no_repetition() -> None:
    assert not is_repetitive("1. Buy bread at the bakery.\n2. Buy milk at the shop.\n3. Buy stamps in town.")
