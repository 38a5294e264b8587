"""Triplets for embeddings, from reviewed searches: a query, a relevant and an irrelevant document."""

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum

from extractors.examples.prompt_keys import normalise
from extractors.examples.types import Document, JudgedDocument, ReviewedRetrieval, Triplet
from extractors.values import Reasons

ALIKE = 0.9
"""Share of common word triples (Jaccard) from which on two texts are one document.

Triples of words, where `near_duplicates` compares characters: a passage that differs from a relevant one in
a number and a name is the hardest negative there is. Of 60 words with two changed, characters call 37 of 40
the same at 0.9, word triples none; of 120 words with three changed, 40 and 1.
"""


class TripletDropReason(StrEnum):
    """Reasons why a reviewed search gives no triplets, or fewer than it could."""

    NO_RELEVANT = "no document of this search is relevant, so there is nothing to move the query to"
    NO_IRRELEVANT = "no document of this search is irrelevant, so there is nothing to tell apart"
    SAME_AS_RELEVANT = "a document called irrelevant says the same as a relevant one of the query"
    BEYOND_MOST = "more triplets for one query than are wanted"
    ENOUGH = "newer searches of its query give as many triplets as are wanted"


def build_triplets(
    retrievals: Sequence[ReviewedRetrieval], most_per_query: int
) -> tuple[list[Triplet], Reasons]:
    """Pair every relevant document with irrelevant ones of its own result list.

    Returns the triplets, oldest first, and a count per reason of what was left out. At most
    `most_per_query` for one query over all its searches: those of the newest search first,
    and of each search, every relevant document before any a second time, against the irrelevant ones that
    were ranked highest (they are the hardest to tell apart). What one search of a query calls
    relevant is never a negative of that query, nor is a text that says the same.
    """
    by_query: dict[str, list[ReviewedRetrieval]] = {}
    for retrieval in sorted(
        retrievals, key=lambda each: (each.started_at, each.source_span_ids), reverse=True
    ):
        by_query.setdefault(retrieval.prompt_key, []).append(retrieval)
    triplets: list[Triplet] = []
    left_out = Reasons()
    for searches in by_query.values():
        of_query, reasons = _build_for_query(searches, most_per_query)
        triplets += of_query
        left_out += reasons
    return sorted(triplets, key=lambda triplet: (triplet.started_at, triplet.source_span_ids)), left_out


def _build_for_query(searches: Sequence[ReviewedRetrieval], most: int) -> tuple[list[Triplet], Reasons]:
    """Build the triplets of one query's searches, newest first; stop reading older ones at `most`."""
    relevant = _RelevantTexts(each.text for search in searches for each in search.documents if each.relevant)
    triplets: dict[str, Triplet] = {}
    left_out = Reasons()
    for read, search in enumerate(searches):
        if len(triplets) == most:
            left_out[TripletDropReason.ENOUGH] += len(searches) - read
            break
        of_search, reasons = _build_for_search(search, relevant)
        left_out += reasons
        for triplet in of_search:
            if len(triplets) == most and triplet.id not in triplets:
                left_out[TripletDropReason.BEYOND_MOST] += 1
            else:
                triplets.setdefault(triplet.id, triplet)
    return list(triplets.values()), left_out


def _build_for_search(search: ReviewedRetrieval, relevant: "_RelevantTexts") -> tuple[list[Triplet], Reasons]:
    positives = [document for document in search.documents if document.relevant]
    irrelevant = [document for document in search.documents if document.relevant is False]
    if not positives:
        return [], Reasons([TripletDropReason.NO_RELEVANT])
    negatives = [each for each in irrelevant if not relevant.matches(each.text)]
    left_out = Reasons({TripletDropReason.SAME_AS_RELEVANT: len(irrelevant) - len(negatives)})
    if not negatives:
        left_out[TripletDropReason.NO_IRRELEVANT] += 1
    triplets = [
        _build_triplet(search, positive, negative) for negative in negatives for positive in positives
    ]
    return triplets, left_out


def _build_triplet(search: ReviewedRetrieval, positive: JudgedDocument, negative: JudgedDocument) -> Triplet:
    return Triplet(
        query=search.query,
        positive=Document(id=positive.id, text=positive.text),
        negative=Document(id=negative.id, text=negative.text),
        prompt_key=search.prompt_key,
        source_span_ids=search.source_span_ids,
        trace_id=search.trace_id,
        session_id=search.session_id,
        started_at=search.started_at,
    )


Words = tuple[str, ...]


class _RelevantTexts:
    """The texts that the searches of one query call relevant, each read once."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._triples = {words: _list_triples(words) for words in map(_split_words, dict.fromkeys(texts))}
        self._matches: dict[str, bool] = {}

    def matches(self, text: str) -> bool:
        """Return whether one of them has the words of `text`, or has nearly all word triples in common."""
        if text not in self._matches:
            words = _split_words(text)
            triples = _list_triples(words)
            self._matches[text] = words in self._triples or any(
                _are_alike(triples, known) for known in self._triples.values()
            )
        return self._matches[text]


def _are_alike(some: set[Words], others: set[Words]) -> bool:
    # Else the greater set alone is too much for the share that they have in common.
    if min(len(some), len(others)) < ALIKE * max(len(some), len(others)):
        return False
    common = len(some & others)
    return common >= ALIKE * (len(some) + len(others) - common) > 0


def _split_words(text: str) -> Words:
    return tuple(re.findall(r"\w+", normalise(text)))


def _list_triples(words: Words) -> set[Words]:
    return {words[start : start + 3] for start in range(len(words) - 2)}
