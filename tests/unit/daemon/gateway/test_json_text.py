"""JSON as the gateway passes it on: what was read is what is written."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.gateway.limits import BeyondLimits, estimate_memory, parse_json, write_json

TEXTS = st.text(st.characters(exclude_categories=()))
"""Halves of surrogate pairs among them."""
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=20,
)


@given(VALUES)
def test_a_value_is_read_as_it_was_written(value: Any) -> None:
    assert parse_json(write_json(value)) == value
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (b'{"seed": 123456789012345678901234567890}', b'{"seed":123456789012345678901234567890}'),
        (b'["\\ud83d"]', b'["\\ud83d"]'),
        (b'{"n": 1, "n": 2}', b'{"n":2}'),
        (b'\xef\xbb\xbf{"n": 1e2}', b'{"n":100.0}'),
        ('["ä\u2028"]'.encode("utf-16"), '["ä\u2028"]'.encode()),
    ],
    ids=["large integer", "half a pair", "key twice", "byte order mark", "UTF-16"],
)
def test_what_is_unusual_keeps_its_meaning(text: bytes, written: bytes) -> None:
    assert write_json(parse_json(text)) == written


@pytest.mark.parametrize("text", [b"NaN", b"[-Infinity]", b'{"n": 1e999}', b"[" * 5000 + b"]" * 5000])
def test_what_json_cannot_carry_is_refused(text: bytes) -> None:
    with pytest.raises(BeyondLimits):
        parse_json(text)


@pytest.mark.parametrize("small", [b"{}", b"[]", b"[1]", b'{"a":1}', b"1000", b'"some words"', b"1.5"])
def test_what_a_value_takes_in_memory_is_not_far_above_the_estimate(small: bytes) -> None:
    text = b"[" + small + (b"," + small) * 20_000 + b"]"
    tracemalloc.start()
    try:
        value = parse_json(text)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert value
    assert taken < 1.5 * estimate_memory(text)
