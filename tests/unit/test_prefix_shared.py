"""Packing loses nothing: every row's tokens, positions and visibility are found again in the tree."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trainers.prefix_shared import pack


@st.composite
def batches(draw):
    """Rows over few tokens, so that they often begin alike, with how much of each may be shared."""
    rows = draw(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=7))
    return rows, [draw(st.integers(0, len(row))) for row in rows]


def packed_of(rows, shareable):
    return pack([np.array(row) for row in rows], shareable)


@given(batches())
def test_every_row_is_a_path_that_sees_itself_causally_and_nothing_else(batch):
    rows, shareable = batch
    packed = packed_of(rows, shareable)
    sees = packed.sees()
    for row, path in zip(rows, packed.paths, strict=True):
        assert packed.tokens[path].tolist() == row
        assert packed.positions[path].tolist() == list(range(len(row)))
        for place, node in enumerate(path):
            assert np.flatnonzero(sees[node]).tolist() == sorted(path[: place + 1].tolist())


@given(batches())
def test_a_token_stands_after_those_it_sees(batch):
    sees = packed_of(*batch).sees()
    assert not np.triu(sees, k=1).any()


@given(batches())
def test_what_may_be_shared_stands_once_and_the_rest_for_each_row(batch):
    rows, shareable = batch
    beginnings = {
        tuple(row[: end + 1]) for row, most in zip(rows, shareable, strict=True) for end in range(most)
    }
    own = sum(len(row) - most for row, most in zip(rows, shareable, strict=True))
    assert len(packed_of(rows, shareable).tokens) == len(beginnings) + own


def test_pairs_share_the_batch_s_beginning_and_each_its_prompt():
    system, first, second = [1, 5, 9], [20, 21], [30, 31, 32]
    rows = [
        [*system, *first, 7, 2],
        [*system, *second, 7, 2],
        [*system, *first, 8, 2],
        [*system, *second, 8, 2],
    ]
    packed = packed_of(rows, [5, 6, 5, 6])
    assert packed.tokens.tolist() == [1, 5, 9, 20, 21, 7, 2, 8, 2, 30, 31, 32, 7, 2, 8, 2]
    assert packed.positions.tolist() == [0, 1, 2, 3, 4, 5, 6, 5, 6, 3, 4, 5, 6, 7, 6, 7]
