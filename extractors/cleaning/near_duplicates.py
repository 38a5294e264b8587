"""Find texts that are nearly the same: candidates by MinHash sketches, verified by exact similarity.

text ─> letters without case, punctuation, template ─> 3-character shingles ─┬─> sketch ─> candidates ─┐
                                                                             └──> Jaccard similarity ──┴> link

Broder, "On the resemblance and containment of documents" (1997); Leskovec, Rajaraman, Ullman,
"Mining of Massive Datasets", chapter 3 (bands and rows).
"""

import unicodedata
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, cached_property, lru_cache
from math import sqrt
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from extractors.cleaning.rules import NEAR
from extractors.cleaning.templates import Templates, find_templates, is_long
from extractors.examples.prompt_keys import normalise

PERMUTATIONS = 128
MISSED = 1e-6
"""Greatest probability that a pair just as similar as the threshold is no candidate."""
BUCKET = 50
"""Texts that a bucket of the index takes. Where hundreds are alike, though not near, most buckets are full,
but near texts still share the buckets that few texts fall into."""
VERIFIED = 20
"""Candidates whose similarity is computed: those whose sketches are most alike."""
DEVIATIONS = 5
"""Standard deviations that the similarity of two sketches may lie below that of the texts."""
Shingles = NDArray[np.uint64]
"""Hashes of three characters each, sorted. A typo changes 3 of them: two texts of 60 characters that differ
by one are near, two of 30 are not. Words, or longer shingles, would find little in short questions."""
Sketch = NDArray[np.uint32]
LEAST = 0.5
"""Texts are never near where one has less than this share of the other's number of shingles."""
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""Knuth's multiplicative hashing: the upper half of a product with this number is the hash."""


def find_near_duplicates(
    texts: Sequence[str], threshold: float = NEAR, templates: Templates | None = None
) -> list[int | None]:
    """Return for each text the position of the earlier one that it repeats (itself no repetition), else None.

    Put the texts that shall stay first. `templates` come from `find_templates_in_texts`, by default of these
    texts: texts that differ only in what they put into a long template are not near.
    """
    seen = KnownTexts((), threshold, find_templates_in_texts(texts) if templates is None else templates)
    links: list[int | None] = []
    for position, text in enumerate(texts):
        features = _TextFeatures(text, seen.templates)
        link = seen.find_nearest(features)
        if link is None:
            seen.add(position, features)
        links.append(link)
    return links


def find_near_matches(
    texts: Sequence[str],
    known: Sequence[str],
    threshold: float = NEAR,
    templates: Templates | None = None,
) -> list[int | None]:
    """Return for each text the position in `known` of the most similar text that it is near to, else None.

    `templates` as for `find_near_duplicates`, by default of both. Equal texts always match.
    """
    seen = KnownTexts(
        known, threshold, find_templates_in_texts([*texts, *known]) if templates is None else templates
    )
    return [seen.find_match(text) for text in texts]


def find_templates_in_texts(texts: Iterable[str]) -> Templates:
    """Find the templates that `texts` were written in, without regard to case and punctuation."""
    return find_templates(_to_plain(text) for text in texts)


class _TextFeatures:
    """A text in the forms in which it is compared."""

    def __init__(self, text: str, templates: Templates) -> None:
        self.plain = _to_plain(text)
        self.own = templates.remove_passages(self.plain)
        """The text without passages of templates. A text without own words is near only to equal ones."""
        self.shingles = _compute_shingles(self.own)

    @cached_property
    def sketch(self) -> Sketch:
        return _compute_sketch(self.shingles)


class KnownTexts:
    """Texts, by position, to which others may be near."""

    def __init__(self, texts: Iterable[str], threshold: float, templates: Templates) -> None:
        self.templates = templates
        self._threshold = threshold
        self._positions: dict[str, int] = {}
        self._texts: dict[int, tuple[str, str, int]] = {}
        self._sizes: list[int] = []
        self._index = _Index(threshold)
        for position, text in enumerate(texts):
            self.add(position, _TextFeatures(text, templates))

    def find_match(self, text: str) -> int | None:
        """Return the position of the equal text, else of the most similar near one, the first of several."""
        return self.find_nearest(_TextFeatures(text, self.templates))

    def matches_beginning(self, parts: Iterable[str]) -> bool:
        """Return whether some first parts of a text are together near one of the texts.

        Takes time proportional to the text: the sketch of a union holds the smaller hashes of both sketches.
        """
        plain = [bare for part in parts if (bare := _remove_punctuation(part))]
        largest = self._sizes[-1] if self._sizes else 0
        held, sketch = set[int](), _compute_sketch(_compute_shingles(""))
        for number, own in enumerate(self.templates.remove_passages_from_parts(plain), 1):
            beginning = " ".join(plain[:number])
            if beginning in self._positions:
                return True
            shingles = _compute_shingles(own)
            held.update(shingles.tolist())
            if len(held) * LEAST > largest:
                return False
            sketch = np.minimum(sketch, _compute_sketch(shingles))
            candidates = self._filter_by_size(len(held), self._index.find_candidates(sketch))
            if (
                candidates
                and self._find_most_similar(_TextFeatures(beginning, self.templates), candidates) is not None
            ):
                return True
        return False

    def find_nearest(self, features: _TextFeatures) -> int | None:
        if features.plain in self._positions:
            return self._positions[features.plain]
        if not features.own or not self._has_similar_size(len(features.shingles)):
            return None
        return self._find_most_similar(features, self._index.find_candidates(features.sketch))

    def add(self, position: int, features: _TextFeatures) -> None:
        if features.plain in self._positions:
            return
        self._positions[features.plain] = position
        if features.own:
            self._texts[position] = (features.plain, features.own, len(features.shingles))
            insort(self._sizes, len(features.shingles))
            self._index.add(position, features.sketch)

    def _has_similar_size(self, size: int) -> bool:
        """Return whether some text is not much smaller or larger."""
        at = bisect_left(self._sizes, self._threshold * size)
        return at < len(self._sizes) and self._threshold * self._sizes[at] <= size

    def _filter_by_size(self, size: int, candidates: Iterable[int]) -> list[int]:
        """Keep candidates of about `size` shingles: parts have some more, or less, than their text."""
        sizes = ((position, self._texts[position][2]) for position in candidates)
        return [at for at, other in sizes if min(size, other) >= 0.9 * self._threshold * max(size, other)]

    def _find_most_similar(self, features: _TextFeatures, candidates: Iterable[int]) -> int | None:
        best, nearest = 0.0, None
        for position in candidates:
            similarity = self._compute_similarity(features, position)
            if similarity >= self._threshold and similarity > best:
                best, nearest = similarity, position
        return nearest

    def _compute_similarity(self, features: _TextFeatures, position: int) -> float:
        """Return the similarity of the own parts; 0 where these are short and the templates differ."""
        plain, own, size = self._texts[position]
        if min(size, len(features.shingles)) < self._threshold * max(size, len(features.shingles)):
            return 0.0
        similarity = _compute_jaccard(features.shingles, _compute_shingles(own))
        if similarity < self._threshold or is_long(own) or (features.plain, plain) == (features.own, own):
            return similarity
        whole = _compute_jaccard(_compute_shingles(features.plain), _compute_shingles(plain))
        return similarity if whole >= self._threshold else 0.0


class _Index:
    """An index of texts by parts (bands) of their sketches: near texts most probably share one."""

    def __init__(self, threshold: float) -> None:
        self._likely = threshold - DEVIATIONS * sqrt(threshold * (1 - threshold) / PERMUTATIONS)
        self._bands, self._rows = _choose_bands(threshold)
        self._buckets: defaultdict[tuple[int, bytes], list[int]] = defaultdict(list)
        self._sketches: dict[int, Sketch] = {}

    def find_candidates(self, sketch: Sketch) -> list[int]:
        """Return the positions, in order, of the texts that seem most alike, and may be near."""
        sharing = {position for part in self._list_bands(sketch) for position in self._buckets.get(part, ())}
        if not sharing:
            return []
        found = np.array(sorted(sharing))
        alike = (np.stack([self._sketches[position] for position in found]) == sketch).mean(axis=1)
        best = np.argsort(-alike, kind="stable")[:VERIFIED]
        return sorted(found[best[alike[best] >= self._likely]].tolist())

    def add(self, position: int, sketch: Sketch) -> None:
        self._sketches[position] = sketch
        for part in self._list_bands(sketch):
            bucket = self._buckets[part]
            if len(bucket) < BUCKET:
                bucket.append(position)

    def _list_bands(self, sketch: Sketch) -> Iterator[tuple[int, bytes]]:
        parts = sketch[: self._bands * self._rows].reshape(self._bands, self._rows)
        return ((band, part.tobytes()) for band, part in enumerate(parts))


def _compute_sketch(shingles: Shingles) -> Sketch:
    sketch = _make_empty_sketch().copy()
    sketch.update_batch(((shingles * _SPREAD) >> np.uint64(32)).tolist())
    return cast(Sketch, sketch.hashvalues)


@cache
def _make_empty_sketch() -> Any:
    from datasketch import MinHash  # type: ignore[import-untyped]

    return MinHash(num_perm=PERMUTATIONS, hashfunc=int)


def _choose_bands(threshold: float) -> tuple[int, int]:
    """Return bands and rows: the most rows, so the fewest candidates, that miss at most `MISSED` of pairs."""
    rows = 1
    for more in range(2, PERMUTATIONS // 2 + 1):
        if (1 - threshold**more) ** (PERMUTATIONS // more) <= MISSED:
            rows = more
    return PERMUTATIONS // rows, rows


def _compute_jaccard(one: Shingles, other: Shingles) -> float:
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)


@lru_cache(maxsize=1000)
def _compute_shingles(plain: str) -> Shingles:
    # Made anew: the sets of all texts would take ten times the memory of the texts.
    codes = np.frombuffer(f" {plain} ".encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(
        np.uint64
    )
    # A code point has 21 bits.
    return np.unique(codes[:-2] << 42 | codes[1:-1] << 21 | codes[2:])


def _to_plain(text: str) -> str:
    """Return `text` without case and punctuation, unless there is nothing else."""
    return _remove_punctuation(text) or normalise(text)


def _remove_punctuation(text: str) -> str:
    return " ".join(normalise(text).translate(_PUNCTUATION).split())


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
