"""The chat route gives the recorded answer, whether or not the server parts the thoughts from it."""

import pytest

from registry.serving.probing import is_recorded_answer
from registry.serving.replica import GreedyAnswer

RECORDED = "<think>\nA parcel, so shipping.\n</think>\n\nshipping"


def reply(text: str, reasoning: str = "") -> GreedyAnswer:
    return GreedyAnswer(text=text, reasoning=reasoning, ended=True, prompt_tokens=7)


@pytest.mark.parametrize("recorded", [RECORDED, RECORDED.removeprefix("<think>\n")])
def test_thoughts_may_stand_in_the_text_or_beside_it(recorded: str) -> None:
    assert is_recorded_answer(reply(RECORDED), recorded, cut=False)
    assert is_recorded_answer(reply("\n\nshipping", "\nA parcel, so shipping.\n"), recorded, cut=False)
    assert not is_recorded_answer(reply("shipping", "Money, so shipping."), recorded, cut=False)
    assert not is_recorded_answer(reply("billing", "A parcel, so shipping."), recorded, cut=False)


def test_a_reply_that_was_cut_within_the_thoughts_is_compared_as_far_as_it_goes() -> None:
    for short in (reply("", "A parcel, so"), reply("<think>\nA parcel, so")):
        assert is_recorded_answer(short, RECORDED, cut=True)
        assert not is_recorded_answer(short, RECORDED, cut=False)
    assert not is_recorded_answer(reply("", "A letter"), RECORDED, cut=True)
    assert not is_recorded_answer(reply(""), RECORDED, cut=True)
