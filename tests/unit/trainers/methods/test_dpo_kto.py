"""Weights of votes in KTO when liked and disliked answers are not balanced."""

import pytest

from trainers.methods.dpo_kto import VoteWeights, balance_votes


@pytest.mark.parametrize(
    ("liked", "disliked", "weights"),
    [
        (50, 50, VoteWeights()),
        (60, 50, VoteWeights()),
        (100, 50, VoteWeights(undesirable=2.0)),
        (50, 100, VoteWeights(desirable=2.0)),
        (50, 0, VoteWeights()),
    ],
)
def test_the_rarer_side_counts_for_more_unless_they_are_balanced(liked, disliked, weights):
    found = balance_votes([True] * liked + [False] * disliked)
    assert found == weights
    if disliked:
        assert 1 <= found.desirable * liked / (found.undesirable * disliked) <= 4 / 3
