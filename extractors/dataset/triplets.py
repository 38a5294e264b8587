"""Triplets from searches: what people called relevant against what they did not."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from extractors.examples.prompt_keys import normalised
from extractors.examples.types import Document, ReviewedRetrieval, Triplet
from extractors.feedback.searches import RetrievalDrop

ALIKE = 0.9
"""Share of common word triples (Jaccard) from which on two texts are one document.

Triples of words, where `near_duplicates` compares characters: a passage that differs from a relevant one in
a number and a name is the hardest negative there is. Of 60 words with two changed, characters call 37 of 40
the same at 0.9, word triples none; of 120 words with three changed, 40 and 1.
"""


def triplets(
    retrievals: Sequence[ReviewedRetrieval], most_per_query: int
) -> tuple[list[Triplet], Counter[RetrievalDrop]]:
    """Every relevant document against irrelevant ones of its own result list, and what was left out.

    At most `most_per_query` for one query over all its searches: those of the newest search first,
    and of each, every relevant document before any a second time, against the irrelevant ones that
    were ranked highest (they are the hardest to tell apart). What one search of a query calls
    relevant is never a negative of that query, nor is a text that says the same.
    """
    by_query: dict[str, list[ReviewedRetrieval]] = {}
    for retrieval in sorted(
        retrievals, key=lambda each: (each.started_at, each.source_span_ids), reverse=True
    ):
        by_query.setdefault(retrieval.prompt_key, []).append(retrieval)
    dropped: Counter[RetrievalDrop] = Counter()
    made = [made for searches in by_query.values() for made in _of_query(searches, most_per_query, dropped)]
    return sorted(made, key=lambda triplet: (triplet.started_at, triplet.source_span_ids)), dropped


def _of_query(
    searches: Sequence[ReviewedRetrieval], most: int, dropped: Counter[RetrievalDrop]
) -> Iterable[Triplet]:
    """Triplets of one query's searches, newest first; older ones are not read once there are enough."""
    relevant = _Relevant(each.text for search in searches for each in search.documents if each.relevant)
    made: dict[str, Triplet] = {}
    for read, search in enumerate(searches):
        if len(made) == most:
            dropped[RetrievalDrop.ENOUGH] += len(searches) - read
            break
        for triplet in _of_search(search, relevant, dropped):
            if len(made) == most and triplet.id not in made:
                dropped[RetrievalDrop.BEYOND_MOST] += 1
            else:
                made.setdefault(triplet.id, triplet)
    return made.values()


def _of_search(
    search: ReviewedRetrieval, relevant: "_Relevant", dropped: Counter[RetrievalDrop]
) -> Iterable[Triplet]:
    positives = [document for document in search.documents if document.relevant]
    irrelevant = [document for document in search.documents if document.relevant is False]
    if not positives:
        dropped[RetrievalDrop.NO_RELEVANT] += 1
        return
    negatives = [each for each in irrelevant if not relevant.says(each.text)]
    dropped[RetrievalDrop.SAME_AS_RELEVANT] += len(irrelevant) - len(negatives)
    if not negatives:
        dropped[RetrievalDrop.NO_IRRELEVANT] += 1
    for negative in negatives:
        for positive in positives:
            yield Triplet(
                query=search.query,
                positive=Document(id=positive.id, text=positive.text),
                negative=Document(id=negative.id, text=negative.text),
                prompt_key=search.prompt_key,
                source_span_ids=search.source_span_ids,
                session_id=search.session_id,
                started_at=search.started_at,
            )


Words = tuple[str, ...]


class _Relevant:
    """What the searches of one query call relevant, each text read once."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._triples = {words: _triples(words) for words in map(_words, dict.fromkeys(texts))}
        self._says: dict[str, bool] = {}

    def says(self, text: str) -> bool:
        """Whether one of them has the same words as `text`, or nearly all of their triples in common."""
        if text not in self._says:
            words = _words(text)
            triples = _triples(words)
            self._says[text] = words in self._triples or any(
                _alike(triples, known) for known in self._triples.values()
            )
        return self._says[text]


def _alike(some: set[Words], others: set[Words]) -> bool:
    # Else the greater set alone is too much for the share that they have in common.
    if min(len(some), len(others)) < ALIKE * max(len(some), len(others)):
        return False
    common = len(some & others)
    return common >= ALIKE * (len(some) + len(others) - common) > 0


def _words(text: str) -> Words:
    return tuple(re.findall(r"\w+", normalised(text)))


def _triples(words: Words) -> set[Words]:
    return {words[start : start + 3] for start in range(len(words) - 2)}
