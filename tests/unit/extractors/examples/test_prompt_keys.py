"""Tests of the ways to compare prompts and answers, whoever traced them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extractors.examples.prompt_keys import (
    canonicalise_json,
    compute_prompt_key,
    is_nearly_equal,
    to_comparable,
)
from extractors.examples.types import Message, ToolCall

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def call(arguments: str) -> Message:
    return Message(role="assistant", tool_calls=(ToolCall(name="book", arguments=arguments),))


@given(value=JSON)
def test_json_is_one_value_however_it_is_written(value: object) -> None:
    written = [
        json.dumps(value),
        json.dumps(value, ensure_ascii=False, separators=(",", ":")),
        json.dumps(value, indent=3, sort_keys=True),
    ]
    assert len(set(map(canonicalise_json, written))) == 1


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ('{"a": 1, "b": "ø"}', '{"b":"\\u00f8","a":1.0}', True),
        ("", "{}", True),
        ("null", "{}", True),
        ('{"a": 1}', '{"a": true}', False),
        ('{"a": 1}', '{"a": "1"}', False),
        ('{"a": "x y"}', '{"a": "x  y"}', False),
        ("no json ", "no json", True),
        ("[" * 100_000, "[" * 100_000, True),
        ('{"a": 1', '{"a":1', False),
    ],
)
def test_arguments_are_compared_by_value(one: str, other: str, same: bool) -> None:
    assert (to_comparable(call(one)) == to_comparable(call(other))) is same


def test_a_result_that_is_json_is_compared_by_value_and_text_without_white_space_around_words() -> None:
    def result(content: str) -> list[object]:
        return to_comparable(Message(role="tool", content=content))

    assert result('{"free": [1, 2]}') == result('{"free":[1,2]}\n')
    assert result("two  free\n") == result("two free")
    assert result("two free") != result("twofree")
    assert to_comparable(Message(role="user", content="{}")) != to_comparable(
        Message(role="user", content="{ }")
    )


def test_thoughts_and_ids_do_not_count() -> None:
    plain = Message(role="assistant", content="Yes.", tool_calls=(ToolCall(name="f", arguments="{}"),))
    other = plain.model_copy(
        update={"reasoning": "hm", "tool_calls": (ToolCall(id="c1", name="f", arguments=""),)}
    )
    assert to_comparable(plain) == to_comparable(other)
    assert is_nearly_equal(plain, other.model_copy(update={"content": "yes. "}))


def test_the_key_of_a_prompt_stays_what_it_is() -> None:
    """Snapshots and the split into train and holdout keep it: the way JSON is written counts in it."""
    prompt = [Message(role="user", content="A berth?"), call('{"n": 2}')]
    assert compute_prompt_key(prompt) == "a9ed9b822a8e682dab941c4b02c1132f"
    assert compute_prompt_key([prompt[0], call('{"n":2}')]) != compute_prompt_key(prompt)
