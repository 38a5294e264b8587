"""Templates that many texts were written in, and the own part of each text.

    "Name the department that answers this ticket: | my kettle leaks | Answer in one word, please."
     └────────────── passage ───────────────────┘   └──── own ────┘   └──────── passage ─────────┘

A passage is a run of words that many different texts share. One text that is asked again and again with
small changes has such runs, too, but is no template: what is changed is now here, now there. A template has
a slot, a place where its texts go on in many ways. There can be any number of templates, and of passages in
one: instructions, and documents that were found for a question.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from zlib import crc32

PASSAGE = 8
"""Words of a passage; the beginning and the end of a text count as words. In a shorter run, a difference
weighs enough."""
FEWEST = 20
"""Number of different texts (of at most `SAMPLE`) that must share a passage."""
SAMPLE = 2000
CHARACTERS = 4_000_000
"""Characters of the sampled texts at most: they take 100 bytes of memory a word."""
MOST_USUAL = 0.5
"""Greatest share of a passage's texts that may go on by the same word where there is a slot."""
_BEGIN, _END = "\x02", "\x03"


class Templates:
    """Passages, as hashes, and the sides on which they have a slot."""

    def __init__(
        self,
        passages: frozenset[int] = frozenset(),
        before_slot: frozenset[int] = frozenset(),
        after_slot: frozenset[int] = frozenset(),
    ) -> None:
        self._passages = passages
        self._before_slot = before_slot
        self._after_slot = after_slot

    def remove_passages(self, text: str) -> str:
        """Return `text` without passages: all of it where it is in no template, perhaps nothing."""
        (own,) = self.remove_passages_from_parts([text])
        return own

    def remove_passages_from_parts(self, parts: Sequence[str]) -> list[str]:
        """Return each part of a text without passages."""
        if not self._passages:
            return list(parts)
        words = _split_words(" ".join(parts))
        found = [(at, run) for at, run in enumerate(_hash_runs(words, PASSAGE)) if run in self._passages]
        borders = {at + PASSAGE for at, run in found if run in self._before_slot}
        borders |= {at for at, run in found if run in self._after_slot}
        if not borders:
            return list(parts)
        shared = set[int]()
        for at, _ in found:
            # A run across a border holds the first words of what is said in the slot.
            if borders.isdisjoint(range(at + 1, at + PASSAGE)):
                shared.update(range(at, at + PASSAGE))
        own = iter([None if at in shared else word for at, word in enumerate(words)][1:])
        return [" ".join(filter(None, islice(own, part.count(" ") + 1))) for part in parts]


def is_long(own: str) -> bool:
    """Return whether a text's own part is as long as a passage."""
    return own.count(" ") + 1 >= PASSAGE


def find_templates(texts: Iterable[str]) -> Templates:
    """Find the templates among `texts`, whose words must be separated by single spaces."""
    sample = _draw_sample(list(dict.fromkeys(texts)))
    counts = Counter(run for text in sample for run in set(_hash_runs(_split_words(text), PASSAGE)))
    passages = frozenset(run for run, count in counts.items() if count >= FEWEST)
    if not passages:
        return Templates()
    following: defaultdict[int, Counter[str]] = defaultdict(Counter)
    preceding: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for text in sample:
        words = _split_words(text)
        for at, run in enumerate(_hash_runs(words, PASSAGE)):
            if run in passages:
                if at + PASSAGE < len(words):
                    following[run][words[at + PASSAGE]] += 1
                if at:
                    preceding[run][words[at - 1]] += 1
    return Templates(passages, frozenset(_find_slots(following)), frozenset(_find_slots(preceding)))


def _draw_sample(different: Sequence[str]) -> Sequence[str]:
    average = sum(map(len, different)) / max(1, len(different))
    # By hash: each third text of three templates in turn would be one template's.
    return sorted(different, key=_compute_digest)[: min(SAMPLE, int(CHARACTERS / max(1, average)))]


def _compute_digest(text: str) -> int:
    return crc32(text.encode("utf-8", "surrogatepass"))


def _split_words(text: str) -> list[str]:
    return [_BEGIN, *text.split(" "), _END]


def _hash_runs(words: Sequence[str], length: int) -> Iterator[int]:
    return (hash(tuple(words[at : at + length])) for at in range(len(words) - length + 1))


def _find_slots(neighbours: dict[int, Counter[str]]) -> Iterator[int]:
    """Yield the passages beside which different texts have different words."""
    for run, words in neighbours.items():
        total = words.total()
        if total >= FEWEST and max(words.values()) <= MOST_USUAL * total:
            yield run
