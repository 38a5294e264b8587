"""Figures of held-out searches, against values worked out by hand."""

import math
from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from evaluation.metrics.retrieval import (
    NothingToSearch,
    Query,
    average_rankings,
    build_library,
    rank_documents,
    search_side,
)
from extractors.examples.prompt_keys import compute_query_key
from extractors.examples.types import JudgedDocument, ReviewedRetrieval
from tests.support.traffic import NOON


def make_search(*documents: tuple[str, bool | None], query: str = "q", number: int = 0) -> ReviewedRetrieval:
    return ReviewedRetrieval(
        query=query,
        documents=tuple(JudgedDocument(text=text, relevant=relevant) for text, relevant in documents),
        source_span_ids=(f"s{number}",),
        trace_id=f"t{number}",
        session_id=str(number),
        prompt_key=compute_query_key(query),
        started_at=NOON,
    )


def query(*relevant: int) -> Query:
    return Query(item_id="i", text="q", relevant=relevant, session="s")


def score_by_rank(*places: int) -> list[float]:
    """Scores that put document n at place `places[n]`."""
    return [-float(place) for place in places]


def test_the_first_of_three_documents_is_relevant() -> None:
    ranked = rank_documents(query(1), score_by_rank(2, 1, 3))
    assert (ranked.hit, ranked.mrr, ranked.ndcg) == (True, 1.0, 1.0)
    assert ranked.recall == {1: 1.0, 5: 1.0, 10: 1.0}


def test_figures_are_those_worked_out_by_hand() -> None:
    # Two relevant documents, at places 2 and 7 of 12:
    # DCG = 1/log2(3) + 1/log2(8) = 0.6309 + 0.3333; the ideal is 1/log2(2) + 1/log2(3) = 1.6309.
    ranked = rank_documents(query(0, 1), score_by_rank(2, 7, 1, 3, 4, 5, 6, 8, 9, 10, 11, 12))
    assert not ranked.hit
    assert ranked.recall == {1: 0.0, 5: 0.5, 10: 1.0}
    assert ranked.mrr == 0.5
    assert ranked.ndcg == pytest.approx(0.9643 / 1.6309, abs=1e-4)


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=2, max_size=30), st.randoms())
def test_the_gain_is_that_of_scikit_learn(relevant: list[bool], random: Random) -> None:
    assume(any(relevant))
    scores = random.sample(range(100), len(relevant))
    ranked = rank_documents(
        query(*(n for n, each in enumerate(relevant) if each)), [float(s) for s in scores]
    )
    assert ranked.ndcg == pytest.approx(ndcg_score([relevant], [scores], k=10))


def test_what_lies_below_the_tenth_place_counts_for_nothing() -> None:
    ranked = rank_documents(query(0), score_by_rank(11, *range(1, 11)))
    assert (ranked.mrr, ranked.ndcg, ranked.recall[10]) == (0.0, 0.0, 0.0)


def test_more_than_ten_relevant_documents_can_still_be_ranked_ideally() -> None:
    ranked = rank_documents(query(*range(12)), score_by_rank(*range(1, 15)))
    assert ranked.ndcg == pytest.approx(1.0)
    assert ranked.recall[10] == pytest.approx(10 / 12)


def test_a_side_has_the_means_over_its_queries() -> None:
    good, bad = rank_documents(query(0), score_by_rank(1, 2)), rank_documents(query(1), score_by_rank(1, 2))
    side = average_rankings("base", [good, bad])
    assert (side.hit_rate, side.recall[1], side.recall[5], side.mrr) == (0.5, 0.5, 1.0, 0.75)
    assert side.ndcg == pytest.approx((1 + 1 / math.log2(3)) / 2)
    assert side.ranked == (good, bad)


def test_every_query_meets_every_document_once() -> None:
    library = build_library(
        [
            make_search(("b", True), ("a  x", None), query="one"),
            make_search(("A X", True), ("c", False), query="two", number=1),
            make_search(("d", True), ("B", False), query=" One", number=2),
            make_search(("e", False), query="nothing relevant", number=3),
        ]
    )
    assert library.documents == ("a  x", "b", "c", "d", "e")
    assert [(each.text, each.relevant, each.session) for each in library.queries] == [
        ("one", (1, 3), "session 0"),
        ("two", (0,), "session 1"),
    ]


def test_searches_without_any_relevant_document_cannot_be_scored() -> None:
    with pytest.raises(NothingToSearch, match="none of 1 held-out searches"):
        build_library([make_search(("a", False), ("b", None))])


class Letters:
    """Encodes a text as how often each letter stands in it; the side `blind` sees nothing."""

    def encode_queries(self, side: str, texts: Sequence[str], batch_size: int) -> Any:  # noqa: ARG002
        counts = [[text.count(letter) * (side != "blind") for letter in "abcdefgh"] for text in texts]
        return np.array(counts, dtype=float)

    encode_documents = encode_queries

    def compute_similarities(self, queries: Any, documents: Any) -> Any:
        return queries @ documents.T


def test_the_sides_search_the_same_documents() -> None:
    held_out = [
        make_search(("bb", True), ("a", False), query="b"),
        make_search(("cc", True), ("d", None), query="c", number=1),
    ]
    library = build_library(held_out)
    blind, sees = (search_side(Letters(), name, library) for name in ("blind", "sees"))
    assert (sees.hit_rate, sees.ndcg) == (1.0, 1.0)
    assert blind.hit_rate == 0.0
    assert [each.item_id for each in sees.ranked] == [retrieval.id for retrieval in held_out]
