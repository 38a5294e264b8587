"""Triplets are learned with in-batch negatives only where these would mostly be true negatives."""

import pytest

from extractors.examples.prompt_keys import compute_query_key
from extractors.examples.types import Document, Triplet
from tests.support.traffic import NOON
from trainers.jobs.embedding import split_batch
from trainers.planning.hyperparameters import Hyperparameters
from trainers.planning.triplet_batches import TripletBatching, choose_batches, measure_false_negatives


def make_triplet(query: str, positive: str, negative: str = "no") -> Triplet:
    return Triplet(
        query=query,
        positive=Document(text=positive),
        negative=Document(text=negative),
        prompt_key=compute_query_key(query),
        started_at=NOON,
    )


def test_many_queries_with_documents_of_their_own_are_each_others_negatives() -> None:
    batches = choose_batches([make_triplet(f"q{n}", f"d{n}", f"n{n}") for n in range(100)], 32)
    assert (batches.loss, batches.size) == ("in-batch negatives", 32)


def test_no_batch_is_larger_than_half_of_the_different_texts() -> None:
    many_negatives = [make_triplet(f"q{n}", f"d{n}", f"n{n} {m}") for n in range(20) for m in range(5)]
    assert choose_batches(many_negatives, 32).size == 10


@pytest.mark.parametrize(("queries", "documents"), [(100, 15), (15, 100)])
def test_few_queries_or_few_documents_are_told_apart_by_their_own_negatives_alone(
    queries: int, documents: int
) -> None:
    rows = [make_triplet(f"q{n % queries}", f"d{n % documents}", f"n{n}") for n in range(100)]
    batches = choose_batches(rows, 32)
    assert (batches.loss, batches.size) == ("triplets", 32)
    assert f"{queries} different queries and {documents} different relevant documents" in batches.reason


def test_documents_that_many_queries_share_would_be_false_negatives() -> None:
    # Every query has three relevant documents out of 24, so a batch is full of known false negatives.
    rows = [make_triplet(f"q{n}", f"d{(n + m) % 24}", f"n{n}") for n in range(40) for m in range(3)]
    assert 0.02 < measure_false_negatives(rows) < 0.08
    all_alike = [make_triplet(f"q{n}", f"d{m}", f"n{n}") for n in range(20) for m in range(20)]
    assert measure_false_negatives(all_alike) == pytest.approx(0.5)  # the positives; the negatives are true
    assert choose_batches(all_alike, 32).loss == "triplets"


def test_rows_that_share_a_text_never_meet_so_they_are_no_false_negatives() -> None:
    rows = [make_triplet("q1", "d1"), make_triplet("q1", "d2"), make_triplet("q2", "d1")]
    assert measure_false_negatives(rows) == 0.0


@pytest.mark.parametrize(
    ("size", "accumulation", "parts"),
    [(32, 1, "32 × 1"), (64, 2, "64 × 2"), (100, 1, "50 × 2"), (129, 1, "43 × 3"), (256, 2, "64 × 8")],
)
def test_a_large_batch_begins_in_even_parts(size: int, accumulation: int, parts: str) -> None:
    batches = TripletBatching(loss="triplets", size=size, reason="a test")
    attempt = split_batch(batches, Hyperparameters(gradient_accumulation=accumulation))
    assert str(attempt) == f"{parts} examples a step"
    assert attempt.micro_batch * attempt.accumulation == size * accumulation
