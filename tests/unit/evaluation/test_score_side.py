"""Answers are compared without the thoughts before them."""

import pytest

from evaluation.metrics.scoring import build_scorer
from evaluation.score_side import RawAnswer, SideAnswers, build_raw_answer, score_golden, score_side
from extractors.examples.types import Message
from tests.support.snapshots import make_example, make_item

ROUTING = build_scorer("classification", ("billing", "shipping"), ())
WRITING = build_scorer("generation", (), ())


@pytest.mark.parametrize(
    "written",
    ["<think>\nshipping?\nNo.\n</think>\n\nbilling", "shipping?\nNo.\n</think>\n\nbilling", "billing"],
)
@pytest.mark.parametrize("scorer", [ROUTING, WRITING])
def test_thoughts_are_no_part_of_the_answer(written, scorer):
    item = make_item(1, ("Charged twice", "billing"))
    [answer] = score_side(
        "base", [item], SideAnswers(held_out=(build_raw_answer(written, ended=True),)), scorer
    ).answers
    assert (answer.text, answer.correct, answer.valid) == ("billing", True, True)
    assert all(score == 1 for score in answer.scores.values())


@pytest.mark.parametrize("written", ["<think>billing", "<think>\nbilling\n</think>\n\n"])
def test_thoughts_without_an_answer_are_an_answer_that_was_cut_off(written):
    answer = build_raw_answer(written, ended=True)
    assert answer == RawAnswer(text="", ended=False)
    assert not WRITING.is_valid(answer.text, ended=answer.ended)


def test_an_empty_answer_without_thoughts_did_end():
    assert build_raw_answer("", ended=True) == RawAnswer(text="", ended=True)


def test_thoughts_in_the_text_of_a_gold_answer_are_not_compared():
    thought = Message(role="assistant", content="<think>\nMoney.\n</think>\n\nbilling")
    item = make_item(1, ("Charged twice", "billing")).model_copy(update={"gold": thought})
    side = score_side("base", [item], SideAnswers(held_out=(RawAnswer(text="Billing", ended=True),)), ROUTING)
    assert side.accuracy == 1
    assert side.labels is not None
    assert [(cell.gold, cell.answered) for cell in side.labels.confusion] == [("billing", "billing")]
    case = make_example(1, ("Charged twice", "billing")).model_copy(update={"completion": thought})
    said = [RawAnswer(text="shipping", ended=True)]
    [failed] = score_golden([case], said, said, ROUTING).failed
    assert failed.expected == "billing"
