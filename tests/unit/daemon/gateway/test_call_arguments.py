"""The arguments of a streamed call, in whatever pieces they come."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.gateway.call_arguments import CallArguments

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('a"\\{}[] \n'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a"\\{}'), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.text('k"\\{}'), VALUES, max_size=3), st.integers(1, 7))
def test_an_object_is_whole_with_its_last_piece_and_not_before(value: dict[str, Any], size: int) -> None:
    text = json.dumps(value)
    arguments = CallArguments("")
    for start in range(0, len(text), size):
        assert not arguments.is_whole
        arguments.add(text[start : start + size])
    assert arguments.is_whole
    assert arguments.join() == text


@pytest.mark.parametrize("text", ["", " ", "[1]", "null", '"a"', "{", "}", '{"a": }', '{"a": 1}}', "{} {}"])
def test_what_is_no_object_is_never_whole(text: str) -> None:
    assert not CallArguments(text).is_whole


def test_arguments_are_compared_by_what_they_say() -> None:
    one = CallArguments('{"a"')
    one.add(": 1}")
    assert one == CallArguments('{"a": 1}')
    assert one != CallArguments('{"a": 2}')
    assert one != '{"a": 1}'
