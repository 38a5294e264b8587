"""Thoughts that a server left in the text are parted from the answer, and nothing else is."""

import pytest

from extractors.examples.thoughts import split_thoughts


@pytest.mark.parametrize(
    ("text", "thoughts", "answer"),
    [
        ("<think>\nA refund, then.\n</think>\n\nbilling", "A refund, then.", "billing"),
        ("\n<think>A refund.</think>billing", "A refund.", "billing"),
        ("<think>\n\n</think>\n\nbilling", None, "billing"),
        (
            "<think>Is </b> a tag?</think>\nYes: </b>, or </think>.",
            "Is </b> a tag?",
            "Yes: </b>, or </think>.",
        ),
        ("A refund, then.\n</think>\n\nbilling", "A refund, then.", "billing"),
        ("A refund, then.</think>\r\nbilling", "A refund, then.", "billing"),
        ("A refund, then.\n</think>", "A refund, then.", ""),
    ],
)
def test_thoughts_before_the_answer_are_split_off(text: str, thoughts: str | None, answer: str) -> None:
    assert split_thoughts(text) == (thoughts, answer)


def test_thoughts_without_an_end_leave_no_answer() -> None:
    assert split_thoughts("<think>\nA refund, or per") == ("A refund, or per", "")


@pytest.mark.parametrize(
    "text",
    [
        "billing",
        "",
        "  billing \n",
        "Close the block with </think> and go on.",
        "Write `</think>`\nat the end.",
        "The tags are <think> and </think>\nand nothing else.",
        "First </think>\nthen </think>\nbilling",
        "The answer: <think>really</think>",
    ],
)
def test_tags_in_the_midst_of_a_text_belong_to_it(text: str) -> None:
    assert split_thoughts(text) == (None, text)
