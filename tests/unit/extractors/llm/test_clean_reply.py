"""Markup that small models put around a text is removed, and nothing that texts of its kind have."""

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extractors.llm.clean_reply import find_longest, read_text
from extractors.llm.endpoint import ModelReply, UnusableReply
from extractors.synthesis.generate import divide_equally
from extractors.synthesis.recipes import DemonstrationSelector, format_message, parse_message

PLAIN = ("where is my parcel?", "I was charged twice")


def read(text: str, like: Sequence[str] = PLAIN, *, name: str = "message", cut_off: bool = False) -> str:
    return read_text(ModelReply(text=text, cut_off=cut_off), name, like)


@pytest.mark.parametrize(
    ("text", "like"),
    [
        ('"late" is what they said', PLAIN),
        ('"late" and "later"', PLAIN),
        ('"so late"', ('"where is it"', "charged")),
        ("```\nx = 1\n```", ("```\ny = 2\n```",)),
        ("first line\nsecond line", ("one\ntwo",)),
        ("Message: late", ("Message: charged",)),
        ('{"a": 1}', ('{"b": 2}',)),
        ("Dear all:\n\nlate", ("Dear all:\n\ncharged",)),
        ("it came\nUser: Ann", ("it came\nUser: Bob",)),
        ("messages are lost", PLAIN),
    ],
)
def test_what_texts_of_its_kind_have_stays(text: str, like: Sequence[str]) -> None:
    assert read(text, like) == text


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("“so late”", "so late"),
        ("USER MESSAGE: so late", "so late"),
        ("<think>hm", None),
        ("<think>hm</think>so late", "so late"),
        ("hm\n</think>\n\nso late", "so late"),
        ("Here it is:", "Here it is:"),
        ('{"user_message": "so late"} I hope this helps', "so late"),
        ('{"user_message": 3}', None),
        ("[[ ## reasoning ## ]]\nhm\n[[ ## user_message ## ]]\nso late", "so late"),
    ],
)
def test_what_is_put_around_is_taken_off(written: str, text: str | None) -> None:
    if text is None:
        with pytest.raises(UnusableReply):
            read(written, name="user_message")
    else:
        assert read(written, name="user_message") == text


def test_a_text_that_was_cut_off_is_no_text() -> None:
    with pytest.raises(UnusableReply, match="cut off"):
        read("so la", cut_off=True)
    assert read("so late\nand so on and s", cut_off=True) == "so late"


@given(st.text(max_size=200), st.lists(st.text(max_size=30), max_size=4), st.booleans())
def test_whatever_is_written_it_is_read_or_unusable(text: str, like: list[str], cut_off: bool) -> None:
    try:
        found = read(text, like, cut_off=cut_off)
    except UnusableReply:
        return
    assert 0 < len(found) <= find_longest(like)
    assert found == found.strip()


def test_a_tool_call_is_read_as_it_is_shown() -> None:
    tools = ({"type": "function", "function": {"name": "stock"}},)
    text = '{"name": "stock", "arguments": {"item": "lamp"}}\n{"name": "stock", "arguments": {}}'
    message = parse_message(text, tools, Random(1))
    assert [call.name for call in message.tool_calls] == ["stock", "stock"]
    assert message.content == ""
    assert format_message(message) == text
    for words in ("Let me see", '{"name": "order", "arguments": {}}', '{"name": "stock"'):
        assert parse_message(words, tools, Random(1)).content == words
    assert parse_message(text, (), Random(1)).content == text


@given(st.integers(1, 40), st.integers(1, 100))
def test_goals_have_equal_shares(goals: int, wanted: int) -> None:
    counts = divide_equally([str(goal) for goal in range(goals)], wanted)
    assert sum(counts.values()) == wanted
    assert max(counts.values()) - min(counts.get(str(goal), 0) for goal in range(goals)) <= 1
    assert list(counts) == [str(goal) for goal in range(min(goals, wanted))]


def test_a_call_shows_as_many_demonstrations_as_fit_and_one_at_least() -> None:
    def build_demonstrations(*lengths: int) -> list[tuple[str, dict[str, str]]]:
        return [(str(at), {"message": "x" * length}) for at, length in enumerate(lengths)]

    assert len(DemonstrationSelector(3, 1000).choose(Random(1), build_demonstrations(10, 10, 10, 10))) == 3
    assert len(DemonstrationSelector(3, 25).choose(Random(1), build_demonstrations(10, 10, 10, 10))) == 2
    assert len(DemonstrationSelector(3, 5).choose(Random(1), build_demonstrations(10, 10))) == 1
    (own,), others = build_demonstrations(10), build_demonstrations(*[20] * 9)
    for seed in range(20):
        taken = DemonstrationSelector(3, 1000).choose(Random(seed), [own], others)
        assert taken[-1] == own, "what is like the goal stands last, where a small model looks"
        assert len(taken) == 3
