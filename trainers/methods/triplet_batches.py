"""How triplets are learned from: which loss they can bear, and how large a batch."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from extractors.examples.prompt_keys import normalise
from extractors.examples.types import Triplet
from extractors.values import Value

MIN_BATCH = 8
"""With fewer rows a batch has too few negatives to rank the relevant document among."""
MAX_FALSE_SHARE = 0.05
"""Share of a batch's negatives, known to be relevant, that is bearable."""
MAX_SAMPLE = 1000
"""Rows whose pairs are counted; a million pairs take about a second."""
Loss = Literal["in-batch negatives", "triplets"]


class TripletBatching(Value):
    """How triplets are learned from."""

    loss: Loss
    size: int
    """Rows of a batch."""
    reason: str
    """In words, with the counts that led here."""


def choose_batches(triplets: Sequence[Triplet], batch_size: int) -> TripletBatching:
    """Which loss these triplets can bear, with batches of at most `batch_size` rows.

    Multiple-negatives ranking (Henderson et al. 2017) takes every other document of a batch for
    irrelevant to a query: that teaches most, where queries and documents are many. No batch holds a
    text twice, so it is at most half as large as the different queries, and as the different relevant
    documents, are many. Where that leaves fewer than LEAST_BATCH rows, or more than MOST_FALSE of
    those negatives are known to be relevant to the query, only a triplet's own irrelevant document
    is pushed away (triplet loss, Schroff et al. 2015).
    """
    queries = len({triplet.prompt_key for triplet in triplets})
    documents = len({normalise(triplet.positive.text) for triplet in triplets})
    counts = f"{queries} different queries and {documents} different relevant documents"
    size = min(batch_size, queries // 2, documents // 2)
    share = measure_false_negatives(triplets)
    if size < MIN_BATCH:
        why_not = f"{counts} do not fill batches of {MIN_BATCH} in which no text comes twice"
    elif share > MAX_FALSE_SHARE:
        why_not = f"{share:.0%} of the negatives in a batch would be relevant documents"
    else:
        return TripletBatching(
            loss="in-batch negatives", size=size, reason=f"{counts}, {share:.1%} false negatives"
        )
    return TripletBatching(loss="triplets", size=max(1, min(batch_size, len(triplets))), reason=why_not)


def measure_false_negatives(triplets: Sequence[Triplet]) -> float:
    """Of all documents that a query meets in other rows, the share known to be relevant to it; 0 to 1.

    Rows that share a text cannot meet in a batch.
    """
    relevant: defaultdict[str, set[str]] = defaultdict(set)
    rows: set[tuple[str, str, str]] = set()
    for triplet in triplets:
        positive, negative = normalise(triplet.positive.text), normalise(triplet.negative.text)
        relevant[triplet.prompt_key].add(positive)
        rows.add((triplet.prompt_key, positive, negative))
    sample = sorted(rows)[:: -(-len(rows) // MAX_SAMPLE) or 1]
    met = false = 0
    for query, *own in sample:
        for other, *theirs in sample:
            if other == query or not set(own).isdisjoint(theirs):
                continue
            met += len(theirs)
            false += sum(document in relevant[query] for document in theirs)
    return false / met if met else 0.0
