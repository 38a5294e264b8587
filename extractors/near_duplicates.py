"""Which texts say nearly the same: candidates by MinHash sketches, each verified by its exact similarity.

text ─> letters without case and punctuation ─> 3-character shingles ─┬─> sketch ─> candidates ─┐
                                                                      └────> Jaccard similarity ┴─> link

Broder, "On the resemblance and containment of documents" (1997); Leskovec, Rajaraman, Ullman,
"Mining of Massive Datasets", chapter 3 (bands and rows).
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING
from zlib import crc32

from extractors.text import normalised

if TYPE_CHECKING:
    from datasketch import MinHash  # type: ignore[import-untyped]

NEAR = 0.9
"""Similarity from which two texts count as one.

Chosen on the pairs themselves: of CLINC150's 16,200 short questions 129 (0.8 %) fall at 0.9 ("can you check
the status of my credit card application" / "can you check on the status …"); 5 of them have another
label than what they repeat, 4 of which are one text labelled twice. At 0.85 it is 312 (1.9 %), and pairs
begin to differ in the word that matters ("how many vacation days i have" / "… i have used", "in the nfl" /
"in the nba"); at 0.8, 668 (4.1 %), mostly a politeness more or less, which is variety worth training on.
"""
SHINGLE = 3
"""Characters. A typo changes 3 shingles: two texts of 60 characters that differ by one are near, two of
30 are not. Words, or longer shingles, would find nearly nothing among questions of eight words."""
COMMON = 0.5
"""A shingle in more of the texts than this is their template, not what one of them says."""
SAMPLE = 1000
FEWEST = 20
"""With fewer different texts nothing can be called their template."""
PERMUTATIONS = 128
MISSED = 1e-6
"""Greatest probability that a pair just as similar as the threshold is no candidate."""


def near_duplicates(
    texts: Sequence[str], threshold: float = NEAR, common: frozenset[str] | None = None
) -> list[int | None]:
    """For each text the position of the earlier one that it repeats, itself no repetition; else None.

    Put first what shall stay. `common` is what `common_shingles` found, by default in these texts:
    texts that differ only in what they put into a long template are not near.
    """
    seen = _Seen(threshold, common_shingles(texts) if common is None else common)
    links: list[int | None] = []
    for position, text in enumerate(texts):
        said = _Said(text, seen.common)
        link = seen.nearest(said)
        if link is None:
            seen.add(position, said)
        links.append(link)
    return links


def near_matches(
    texts: Sequence[str],
    known: Sequence[str],
    threshold: float = NEAR,
    common: frozenset[str] | None = None,
) -> list[int | None]:
    """For each text the position in `known` of the most similar text that it is near to; else None.

    `common` as for `near_duplicates`, by default over both. Equal texts always match.
    """
    seen = _Seen(threshold, common_shingles([*texts, *known]) if common is None else common)
    for position, text in enumerate(known):
        seen.add(position, _Said(text, seen.common))
    return [seen.nearest(_Said(text, seen.common)) for text in texts]


def common_shingles(texts: Iterable[str]) -> frozenset[str]:
    """Shingles that more than half of the different texts share: the template they were written in."""
    different = list(dict.fromkeys(_plain(text) for text in texts))
    if len(different) < FEWEST:
        return frozenset()
    sample = different[:: -(-len(different) // SAMPLE)]
    counts = Counter(shingle for text in sample for shingle in _shingles(text))
    return frozenset(shingle for shingle, count in counts.items() if count > COMMON * len(sample))


class _Said:
    """What one text says."""

    def __init__(self, text: str, common: frozenset[str]) -> None:
        self.plain = _plain(text)
        self.shingles = _distinct(self.plain, common)


class _Seen:
    """Texts seen so far, by position."""

    def __init__(self, threshold: float, common: frozenset[str]) -> None:
        from datasketch import MinHash, MinHashLSH

        self.common = common
        self._threshold = threshold
        self._positions: dict[str, int] = {}
        self._texts: dict[int, tuple[str, int]] = {}
        self._empty = MinHash(num_perm=PERMUTATIONS, hashfunc=_hash)
        self._lsh = MinHashLSH(num_perm=PERMUTATIONS, params=_bands(threshold))
        self._sketch: tuple[_Said, MinHash] | None = None

    def nearest(self, said: _Said) -> int | None:
        """The equal text, else the most similar one that is near, the first of several."""
        if said.plain in self._positions:
            return self._positions[said.plain]
        best, nearest = 0.0, None
        for position in sorted(self._lsh.query(self._sketched(said))):
            similarity = self._similarity(said, position)
            if similarity >= self._threshold and similarity > best:
                best, nearest = similarity, position
        return nearest

    def add(self, position: int, said: _Said) -> None:
        if said.plain in self._positions:
            return
        self._positions[said.plain] = position
        self._texts[position] = (said.plain, len(said.shingles))
        self._lsh.insert(position, self._sketched(said), check_duplication=False)

    def _similarity(self, said: _Said, position: int) -> float:
        """Exact Jaccard similarity; 0 where the numbers of shingles alone say that it is not near."""
        plain, size = self._texts[position]
        if min(size, len(said.shingles)) < self._threshold * max(size, len(said.shingles)):
            return 0.0
        # Made anew: the sets of all texts would take a hundred times the memory of the texts.
        shared = len(said.shingles & _distinct(plain, self.common))
        return shared / (size + len(said.shingles) - shared)

    def _sketched(self, said: _Said) -> "MinHash":
        # What was just looked for is what is added next.
        if self._sketch is None or self._sketch[0] is not said:
            sketch = self._empty.copy()
            sketch.update_batch(said.shingles)
            self._sketch = (said, sketch)
        return self._sketch[1]


def _bands(threshold: float) -> tuple[int, int]:
    """Bands and rows: the most rows, so the fewest candidates, that miss at most `MISSED` of near pairs."""
    rows = 1
    for more in range(2, PERMUTATIONS // 2 + 1):
        if (1 - threshold**more) ** (PERMUTATIONS // more) <= MISSED:
            rows = more
    return PERMUTATIONS // rows, rows


def _distinct(plain: str, common: frozenset[str]) -> frozenset[str]:
    """The shingles that are not common; what holds nothing else is near only to what equals it."""
    return _shingles(plain) - common or frozenset({plain})


def _shingles(plain: str) -> frozenset[str]:
    padded = f" {plain} "
    return frozenset(padded[start : start + SHINGLE] for start in range(max(1, len(padded) - SHINGLE + 1)))


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


def _hash(shingle: str) -> int:
    return crc32(shingle.encode("utf-8", "surrogatepass"))
