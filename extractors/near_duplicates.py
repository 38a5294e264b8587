"""Which texts say nearly the same: candidates by MinHash sketches, each verified by its exact similarity.

text ─> letters without case, punctuation, template ─> 3-character shingles ─┬─> sketch ─> candidates ─┐
                                                                             └──> Jaccard similarity ──┴> link

Broder, "On the resemblance and containment of documents" (1997); Leskovec, Rajaraman, Ullman,
"Mining of Massive Datasets", chapter 3 (bands and rows).
"""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from heapq import nlargest

import numpy as np
from numpy.typing import NDArray

from extractors.templates import Templates, find_templates, is_long
from extractors.text import normalised

NEAR = 0.9
"""Similarity from which two texts count as one.

Chosen on the pairs themselves: of CLINC150's 16,200 short questions 129 (0.8 %) fall at 0.9 ("can you check
the status of my credit card application" / "can you check on the status …"); 5 of them have another
label than what they repeat, 4 of which are one text labelled twice. At 0.85 it is 312 (1.9 %), and pairs
begin to differ in the word that matters ("how many vacation days i have" / "… i have used", "in the nfl" /
"in the nba"); at 0.8, 668 (4.1 %), mostly a politeness more or less, which is variety worth training on.
"""
PERMUTATIONS = 128
MISSED = 1e-6
"""Greatest probability that a pair just as similar as the threshold is no candidate."""
BUCKET = 50
"""Texts that a bucket of the index takes. Where hundreds are alike, though not near, most buckets are full;
what is near yet shares those that few texts fall into."""
VERIFIED = 20
"""Candidates whose similarity is taken: those that share the emptiest buckets, and most of them."""
Shingles = NDArray[np.uint64]
"""Of three characters each, sorted. A typo changes 3 of them: two texts of 60 characters that differ by one
are near, two of 30 are not. Words, or longer shingles, would find nearly nothing among short questions."""
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""Of a product with it (Knuth's multiplicative hashing) the upper half is the hash."""


def near_duplicates(
    texts: Sequence[str], threshold: float = NEAR, templates: Templates | None = None
) -> list[int | None]:
    """For each text the position of the earlier one that it repeats, itself no repetition; else None.

    Put first what shall stay. `templates` is what `templates_of` found, by default in these texts:
    texts that differ only in what they put into a long template are not near.
    """
    seen = _Seen(threshold, templates_of(texts) if templates is None else templates)
    links: list[int | None] = []
    for position, text in enumerate(texts):
        said = _Said(text, seen.templates)
        link = seen.nearest(said)
        if link is None:
            seen.add(position, said)
        links.append(link)
    return links


def near_matches(
    texts: Sequence[str],
    known: Sequence[str],
    threshold: float = NEAR,
    templates: Templates | None = None,
) -> list[int | None]:
    """For each text the position in `known` of the most similar text that it is near to; else None.

    `templates` as for `near_duplicates`, by default of both. Equal texts always match.
    """
    seen = _Seen(threshold, templates_of([*texts, *known]) if templates is None else templates)
    for position, text in enumerate(known):
        seen.add(position, _Said(text, seen.templates))
    return [seen.nearest(_Said(text, seen.templates)) for text in texts]


def templates_of(texts: Iterable[str]) -> Templates:
    """The templates that `texts` were written in, but for case and punctuation."""
    return find_templates(_plain(text) for text in texts)


class _Said:
    """What one text says."""

    def __init__(self, text: str, templates: Templates) -> None:
        self.plain = _plain(text)
        self.own = templates.own(self.plain)
        """Beside templates; what says nothing there is near only to what equals it."""
        self.shingles = _shingles(self.own)


class _Seen:
    """Texts seen so far, by position."""

    def __init__(self, threshold: float, templates: Templates) -> None:
        self.templates = templates
        self._threshold = threshold
        self._positions: dict[str, int] = {}
        self._texts: dict[int, tuple[str, str, int]] = {}
        self._index = _Index(threshold)

    def nearest(self, said: _Said) -> int | None:
        """The equal text, else the most similar one that is near, the first of several."""
        if said.plain in self._positions:
            return self._positions[said.plain]
        best, nearest = 0.0, None
        for position in self._index.candidates(said) if said.own else ():
            similarity = self._similarity(said, position)
            if similarity >= self._threshold and similarity > best:
                best, nearest = similarity, position
        return nearest

    def add(self, position: int, said: _Said) -> None:
        if said.plain in self._positions:
            return
        self._positions[said.plain] = position
        if said.own:
            self._texts[position] = (said.plain, said.own, len(said.shingles))
            self._index.add(position, said)

    def _similarity(self, said: _Said, position: int) -> float:
        """Of what both say; 0 where they say little, and each in a template of its own."""
        plain, own, size = self._texts[position]
        if min(size, len(said.shingles)) < self._threshold * max(size, len(said.shingles)):
            return 0.0
        similarity = _jaccard(said.shingles, _shingles(own))
        if similarity < self._threshold or is_long(own) or (said.plain, plain) == (said.own, own):
            return similarity
        whole = _jaccard(_shingles(said.plain), _shingles(plain))
        return similarity if whole >= self._threshold else 0.0


class _Index:
    """Texts by parts (bands) of their sketches: what is near most probably shares one."""

    def __init__(self, threshold: float) -> None:
        from datasketch import MinHash  # type: ignore[import-untyped]

        self._bands, self._rows = _bands(threshold)
        self._empty = MinHash(num_perm=PERMUTATIONS, hashfunc=int)
        self._buckets: defaultdict[tuple[int, bytes], list[int]] = defaultdict(list)
        self._sketch: tuple[_Said, list[tuple[int, bytes]]] | None = None

    def candidates(self, said: _Said) -> list[int]:
        """Positions, in order, of the texts that share most."""
        shared: defaultdict[int, float] = defaultdict(float)
        for part in self._parts(said):
            bucket = self._buckets.get(part, ())
            for position in bucket:
                shared[position] += 1 / len(bucket)
        return sorted(nlargest(VERIFIED, shared, key=shared.__getitem__))

    def add(self, position: int, said: _Said) -> None:
        for part in self._parts(said):
            bucket = self._buckets[part]
            if len(bucket) < BUCKET:
                bucket.append(position)

    def _parts(self, said: _Said) -> list[tuple[int, bytes]]:
        # What was just looked for is what is added next.
        if self._sketch is None or self._sketch[0] is not said:
            sketch = self._empty.copy()
            sketch.update_batch(((said.shingles * _SPREAD) >> np.uint64(32)).tolist())
            values = sketch.hashvalues[: self._bands * self._rows].reshape(self._bands, self._rows)
            self._sketch = (said, [(band, part.tobytes()) for band, part in enumerate(values)])
        return self._sketch[1]


def _bands(threshold: float) -> tuple[int, int]:
    """Bands and rows: the most rows, so the fewest candidates, that miss at most `MISSED` of near pairs."""
    rows = 1
    for more in range(2, PERMUTATIONS // 2 + 1):
        if (1 - threshold**more) ** (PERMUTATIONS // more) <= MISSED:
            rows = more
    return PERMUTATIONS // rows, rows


def _jaccard(one: Shingles, other: Shingles) -> float:
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)


@lru_cache(maxsize=1000)
def _shingles(plain: str) -> Shingles:
    # Made anew: the sets of all texts would take ten times the memory of the texts.
    codes = np.frombuffer(f" {plain} ".encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(
        np.uint64
    )
    # A code point has 21 bits.
    return np.unique(codes[:-2] << 42 | codes[1:-1] << 21 | codes[2:])


def _plain(text: str) -> str:
    """`text` without case and punctuation, unless there is nothing else."""
    folded = normalised(text)
    return " ".join(folded.translate(_PUNCTUATION).split()) or folded


class _Punctuation(dict[int, str]):
    """For `str.translate`: punctuation becomes a space, an apostrophe nothing; symbols and marks stay."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if character in "'’":
            kept = ""
        else:
            kept = " " if unicodedata.category(character).startswith("P") else character
        self[code] = kept
        return kept


_PUNCTUATION = _Punctuation()
