"""The loss and the batch size with which triplets are learned."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from extractors.examples.prompt_keys import normalise
from extractors.examples.types import Triplet
from extractors.values import Value
from trainers.planning.hyperparameters import TripletLoss

MIN_BATCH = 8
"""Rows of a batch; with fewer, there are too few negatives to rank the relevant document among."""
MAX_FALSE_SHARE = 0.05
"""Largest tolerable share of a batch's negatives that are known to be relevant, 0 to 1."""
MAX_SAMPLE = 1000
"""Rows whose pairs are compared; a million pairs take about a second."""


class TripletBatching(Value):
    """The loss and the batch size for a set of triplets."""

    loss: TripletLoss
    size: int
    """Rows in a batch."""
    reason: str
    """In words, with the counts that led here."""


@dataclass(frozen=True)
class TripletData:
    """The triplets of a training and the way in which they are learned."""

    train: Sequence[Triplet]
    validation: Sequence[Triplet]
    batching: TripletBatching


def choose_batches(
    triplets: Sequence[Triplet], batch_size: int, wanted: TripletLoss | None = None
) -> TripletBatching:
    """Choose the loss for these triplets, with batches of at most `batch_size` rows.

    Where a loss is `wanted`, it is taken; in-batch negatives only where they fill a batch.

    Multiple-negatives ranking (Henderson et al. 2017) treats every other document of a batch as
    irrelevant to a query, which teaches most where there are many queries and documents. No batch holds
    a text twice, so its size is at most half the number of different queries, and half that of
    different relevant documents. If that leaves fewer than MIN_BATCH rows, or if more than
    MAX_FALSE_SHARE of the negatives are known to be relevant, only a triplet's own irrelevant document
    is pushed away (triplet loss, Schroff et al. 2015).
    """
    queries = len({triplet.prompt_key for triplet in triplets})
    documents = len({normalise(triplet.positive.text) for triplet in triplets})
    counts = f"{queries} different queries and {documents} different relevant documents"
    size = min(batch_size, queries // 2, documents // 2)
    share = measure_false_negatives(triplets)
    if wanted == "triplets":
        obstacle = "the settings or a race ask for it"
    elif size < MIN_BATCH:
        obstacle = f"{counts} do not fill batches of {MIN_BATCH} in which no text comes twice"
    elif share > MAX_FALSE_SHARE and wanted is None:
        obstacle = f"{share:.0%} of the negatives in a batch would be relevant documents"
    else:
        return TripletBatching(
            loss="in-batch negatives", size=size, reason=f"{counts}, {share:.1%} false negatives"
        )
    return TripletBatching(loss="triplets", size=max(1, min(batch_size, len(triplets))), reason=obstacle)


def measure_false_negatives(triplets: Sequence[Triplet]) -> float:
    """Return the share of other rows' documents that are known to be relevant to a query, 0 to 1.

    Rows that share a text cannot be in the same batch, and are not compared.
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
