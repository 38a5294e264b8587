"""Strata of held-out items and calls of the traffic that are alike in text, and that one version answered.

texts ─> TF-IDF of their characters (any language) ─> latent semantic analysis ─> k-means ─> clusters
version x cluster ─> cells ─> small ones joined to the most similar ones ─> strata
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
"""Turns texts into vectors, shape (texts, dimensions)."""

MOST_CLUSTERS = 16
ITEMS_A_CLUSTER = 20
"""Least held-out items a cluster, on average."""
LEAST = 5
"""Least held-out items of a stratum."""
COMPARED = 300
"""Characters of each text that are compared."""
MOST_PARTS = 6_000
"""Most different runs of characters by which texts are compared; the most frequent ones are taken."""
DIMENSIONS = 50


@dataclass(frozen=True)
class Strata:
    """Strata of held-out items and calls. In every array the held-out items come first, then the calls."""

    cells: Ids
    """Version x cluster, however few its items are, numbered from 0: shape (items + calls,)."""
    strata: Ids
    """The same with small cells joined, numbered as the remaining cells."""
    vectors: Vectors
    """Vectors of the texts, shape (items + calls, dimensions)."""

    def find_typical(self, stratum: int) -> int:
        """Return the position of the text nearest to the middle of the stratum."""
        members = np.flatnonzero(self.strata == stratum)
        inside = self.vectors[members]
        return int(members[_compute_distances(inside, inside.mean(axis=0)).argmin()])


def stratify(
    texts: Sequence[str], versions: Sequence[str | None], held: int, seed: int, embed: Embed | None = None
) -> Strata:
    """Group `texts`, of which the first `held` are held-out items, into strata; `versions` has one a text.

    Similarity is that of the vectors of `embed`, or of the texts' characters without it.
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
        # Texts that are all the same have no variance, of which it computes the explained share.
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
    """Join each cell with few held-out items to the most similar one, of the same version if there is any."""
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
