"""Does an encoder find the documents that people called relevant? Held-out searches, made again.

Every query is compared with every document of the holdout, not only with its own result list, which another
encoder found. Documents that nobody judged count as irrelevant, so the figures are low bounds; they compare
encoders, which all search the same documents. Pure functions: scores in, figures out.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from extractors.dataset.holdout_split import find_group
from extractors.errors import LearndError
from extractors.examples.prompt_keys import normalise
from extractors.examples.types import ReviewedRetrieval
from extractors.values import Value

RECALL_AT = (1, 5, 10)
DEPTH = 10
"""Ranks that count for the reciprocal rank and the discounted cumulative gain."""


class NothingToSearch(LearndError):
    """No held-out search has a relevant document."""


class Query(Value):
    """One query, from all searches that asked it."""

    item_id: str
    """Id of the first held-out search with this query that has a relevant document."""
    text: str
    relevant: tuple[int, ...]
    """Numbers of the library's documents that a person called relevant in one of these searches."""
    session: str
    """Session or trace of that search; the items of a session are not independent."""


class Library(Value):
    """The held-out queries, and all documents that were found for any of them, each text once."""

    queries: tuple[Query, ...]
    documents: tuple[str, ...]


class QueryRanking(Value):
    """Figures of one side on one query."""

    item_id: str
    hit: bool
    """True if the first document found is relevant: the outcome that the verdict rests on."""
    recall: dict[int, float]
    """Share of the relevant documents that are among the first k, by k."""
    mrr: float
    """1 / rank of the first relevant document; 0 if it is not among the first 10 (Voorhees 1999)."""
    ndcg: float
    """Normalised discounted cumulative gain of the first 10, 0 to 1 (Järvelin, Kekäläinen 2002)."""


class SideRankings(Value):
    """Figures of one side of the comparison (base, active version or candidate): means over the queries."""

    name: str
    """`base`, or the version's name."""
    hit_rate: float
    recall: dict[int, float]
    mrr: float
    ndcg: float
    ranked: tuple[QueryRanking, ...]
    """One a query, in the library's order."""


class SearchEncoder(Protocol):
    """An encoder with several sides that can search (`evaluation.engine.encode.Encoder`)."""

    def encode_queries(self, side: str, texts: Sequence[str], batch_size: int) -> Any:
        """Return vectors, shape (texts, dimensions)."""
        ...

    def encode_documents(self, side: str, texts: Sequence[str], batch_size: int) -> Any: ...

    def compute_similarities(self, queries: Any, documents: Any) -> Any:
        """Return similarities, shape (queries, documents), as a NumPy array."""
        ...


def build_library(retrievals: Sequence[ReviewedRetrieval]) -> Library:
    """Return the queries of `retrievals` that found a relevant document, and the documents of all.

    Raises NothingToSearch where no query is left.
    """
    texts: dict[str, str] = {}
    for retrieval in retrievals:
        for document in retrieval.documents:
            texts.setdefault(normalise(document.text), document.text)
    # The order breaks ties, so it must not tell which document was relevant.
    numbers = {key: number for number, key in enumerate(sorted(texts))}
    asked = group_by_query(retrievals)
    queries = [query for searches in asked if (query := _build_query(searches, numbers)) is not None]
    if not queries:
        raise NothingToSearch(
            f"none of {len(retrievals)} held-out searches has a relevant document; have documents judged"
        )
    return Library(queries=tuple(queries), documents=tuple(texts[key] for key in numbers))


def group_by_query(retrievals: Sequence[ReviewedRetrieval]) -> list[list[ReviewedRetrieval]]:
    """Group the searches by query; one with a relevant document comes first, if the group has any."""
    asked: dict[str, list[ReviewedRetrieval]] = {}
    for retrieval in retrievals:
        asked.setdefault(retrieval.prompt_key, []).append(retrieval)
    return [sorted(searches, key=lambda each: each.outcome != "approved") for searches in asked.values()]


def pick_one_per_query(retrievals: Sequence[ReviewedRetrieval]) -> list[ReviewedRetrieval]:
    """Return one search a query, with the ids of the library's queries and the spans of all its searches."""
    return [
        searches[0].model_copy(
            update={"source_span_ids": tuple(span for each in searches for span in each.source_span_ids)}
        )
        for searches in group_by_query(retrievals)
    ]


def _build_query(searches: Sequence[ReviewedRetrieval], numbers: dict[str, int]) -> Query | None:
    relevant = {
        numbers[normalise(document.text)]
        for retrieval in searches
        for document in retrieval.documents
        if document.relevant
    }
    first = searches[0]
    if not relevant:
        return None
    return Query(
        item_id=first.id,
        text=first.query,
        relevant=tuple(sorted(relevant)),
        session=find_group(first),
    )


def search_side(encoder: SearchEncoder, name: str, library: Library, *, batch_size: int = 32) -> SideRankings:
    """Measure how well the side `name` of `encoder` searches the library."""
    documents = encoder.encode_documents(name, library.documents, batch_size)
    queries = encoder.encode_queries(name, [query.text for query in library.queries], batch_size)
    scores = np.asarray(encoder.compute_similarities(queries, documents))
    ranked = tuple(rank_documents(query, row) for query, row in zip(library.queries, scores, strict=True))
    return average_rankings(name, ranked)


def rank_documents(query: Query, scores: Sequence[float] | np.ndarray[Any, Any]) -> QueryRanking:
    """Return the figures of one query; `scores` has the similarity of each document of the library."""
    best_first = np.argsort(-np.asarray(scores, dtype=float), kind="stable").tolist()
    relevant = set(query.relevant)
    found = [document in relevant for document in best_first[: max(DEPTH, *RECALL_AT)]]
    return QueryRanking(
        item_id=query.item_id,
        hit=found[0],
        recall={k: sum(found[:k]) / len(relevant) for k in RECALL_AT},
        mrr=next((1 / place for place, hit in enumerate(found[:DEPTH], start=1) if hit), 0.0),
        ndcg=_compute_gain(found[:DEPTH]) / _compute_gain([True] * min(len(relevant), DEPTH)),
    )


def average_rankings(name: str, ranked: Sequence[QueryRanking]) -> SideRankings:
    """Return the means over `ranked`, which must not be empty."""
    n = len(ranked)
    return SideRankings(
        name=name,
        hit_rate=sum(query.hit for query in ranked) / n,
        recall={k: sum(query.recall[k] for query in ranked) / n for k in RECALL_AT},
        mrr=sum(query.mrr for query in ranked) / n,
        ndcg=sum(query.ndcg for query in ranked) / n,
        ranked=tuple(ranked),
    )


def _compute_gain(found: Sequence[bool]) -> float:
    """Return the discounted cumulative gain: a relevant document at rank r, from 1, adds 1 / log2(1 + r)."""
    return sum(1 / math.log2(1 + place) for place, hit in enumerate(found, start=1) if hit)
