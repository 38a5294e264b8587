"""Which held-out items and calls of the traffic are alike, by the version that answered and by what they say.

texts ─> TF-IDF of their characters (any language) ─> latent semantic analysis ─> k-means ─> clusters
version x cluster ─> cells ─> small ones joined to what is most like them ─> strata
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Vectors = NDArray[np.float64]

Embed = Callable[[Sequence[str]], Any]
"""Texts to their vectors, (texts, dimensions)."""

MOST_CLUSTERS = 16
ITEMS_A_CLUSTER = 20
"""Held-out items for each cluster, on average at least."""
LEAST = 5
"""Held-out items of a stratum."""
COMPARED = 300
"""Characters of a text by which it is compared."""
MOST_PARTS = 6_000
"""Different runs of characters that tell texts apart, the most frequent."""
DIMENSIONS = 50


@dataclass(frozen=True)
class Strata:
    """Held-out items come first in every array, the calls of the traffic after them."""

    cells: Ids
    """Version x cluster, however few items there are: shape (items + calls,), numbered from 0."""
    strata: Ids
    """The same with small cells joined; the numbers are those of the cells that stay."""
    vectors: Vectors
    """What was asked, (items + calls, dimensions)."""

    def typical(self, stratum: int) -> int:
        """Position of the text in the middle of a stratum."""
        members = np.flatnonzero(self.strata == stratum)
        inside = self.vectors[members]
        return int(members[_compute_distances(inside, inside.mean(axis=0)).argmin()])


def stratify(
    texts: Sequence[str], versions: Sequence[str | None], held: int, seed: int, embed: Embed | None = None
) -> Strata:
    """Strata of `texts`, of which the first `held` are those of held-out items; a version a text.

    What is alike is told by the vectors of `embed`, or by the characters.
    """
    vectors = _compute_vectors(texts, seed, embed)
    clusters = _find_clusters(vectors, min(MOST_CLUSTERS, held // ITEMS_A_CLUSTER), seed)
    number = {version: place for place, version in enumerate(sorted(set(versions), key=str))}
    version = np.array([number[each] for each in versions], dtype=np.int64)
    _, cells = np.unique(version * MOST_CLUSTERS + clusters, return_inverse=True)
    return Strata(cells=cells, strata=_join_small_cells(cells, version, vectors, held), vectors=vectors)


def _compute_vectors(texts: Sequence[str], seed: int, embed: Embed | None) -> Vectors:
    from sklearn.preprocessing import normalize  # type: ignore[import-untyped]

    compared = [text[:COMPARED] for text in texts]
    if not any(text.strip() for text in compared):
        return np.zeros((len(texts), 1))
    return np.asarray(
        normalize(embed(compared) if embed else _compute_lexical_vectors(compared, seed)), dtype=np.float64
    )


def _compute_lexical_vectors(texts: Sequence[str], seed: int) -> Any:
    from sklearn.decomposition import TruncatedSVD  # type: ignore[import-untyped]
    from sklearn.feature_extraction.text import TfidfVectorizer  # type: ignore[import-untyped]

    weights: Any = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(3, 5), max_features=MOST_PARTS, sublinear_tf=True
    ).fit_transform(texts)
    dimensions = min(DIMENSIONS, min(weights.shape) - 1)
    if dimensions < 2:
        return weights.toarray()
    with np.errstate(invalid="ignore", divide="ignore"):
        # Of texts that are all the same it computes which share of no variance it explains.
        return TruncatedSVD(dimensions, random_state=seed).fit_transform(weights)


def _find_clusters(vectors: Vectors, count: int, seed: int) -> Ids:
    from sklearn.cluster import KMeans  # type: ignore[import-untyped]
    from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped]

    if count < 2:
        return np.zeros(len(vectors), dtype=np.int64)
    with warnings.catch_warnings():
        # Where fewer texts differ than clusters are wanted, there are fewer clusters.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(KMeans(count, n_init=4, random_state=seed).fit(vectors).labels_, dtype=np.int64)


def _join_small_cells(cells: Ids, version: Ids, vectors: Vectors, held: int) -> Ids:
    """Cells with few held-out items join what is most like them, of the same version if there is any."""
    joined = cells.copy()
    while True:
        there, first = np.unique(joined, return_index=True)
        counts = np.bincount(joined[:held], minlength=there.max(initial=0) + 1)
        least = min(there.tolist(), key=lambda cell: (counts[cell], cell), default=0)
        if len(there) < 2 or counts[least] >= LEAST:
            return joined
        middle = np.array([vectors[joined == cell].mean(axis=0) for cell in there])
        apart = _compute_distances(middle, middle[there == least][0])
        of_version = dict(zip(there.tolist(), version[first].tolist(), strict=True))
        _, _, nearest = min(
            (of_version[cell] != of_version[least], distance, cell)
            for cell, distance in zip(there.tolist(), apart.tolist(), strict=True)
            if cell != least
        )
        joined[joined == least] = nearest


def _compute_distances(vectors: Vectors, point: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm(vectors - point, axis=1))
