"""Packing rows of tokens with common prefixes into one sequence that holds each prefix once.

Examples of one agent begin alike (system prompt, tools); the two answers of a preference pair have
their whole prompt in common. A batch becomes one sequence, which is a tree of its rows:

    tokens     S S S | p p | a a | b b | q q c c      a and b answer the prompt p, c answers q
    positions  0 1 2   3 4   5 6   5 6   3 4 5 6
    sees         S      +S   +S+p  +S+p    +S         (and its own part, causally)

This is tree attention (Cai et al. 2024, Medusa) applied to training. It is exact: a token sees what it
would see in its own row, at the positions it would have there.

It is not always cheaper: attention computes every pair of the sequence's tokens and masks those that do
not see each other, so its work grows with the square of the length. `pack_if_cheaper` decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int64]
LINEAR_FLOPS = 4
"""Operations for a weight and a token: 2 forward, and 2 backward to the input, as the base is frozen (Kaplan
et al. 2020)."""
ATTENTION_FLOPS = 14
"""Operations for a pair of tokens and an element of the queries: two products forward, five backward, 2 each
(Dao et al. 2022, FlashAttention). On a CPU, where both kinds take equally long, this predicts the ratio of
packed to padded steps to a tenth: 0.24 for 0.27 at 300 shared tokens, 2.15 for 2.01 at 320 of 1024
(measured)."""
MAX_PACKED_SHARE = 0.9
"""Share of a padded batch's operations that the packed one may take: building its mask takes time too."""
MASK_COPIES = 2
"""Elements for each pair of tokens: the mask, and the array from which it is built."""


@dataclass(frozen=True)
class PackedBatch:
    """One sequence of L tokens in which every row is a path from the root."""

    tokens: Tokens
    """Token ids, shape (L,); every token comes after those that it sees."""
    positions: Tokens
    """Position of each token in its rows, shape (L,)."""
    owner: Tokens
    """Index of one row that holds the token, shape (L,)."""
    paths: tuple[Tokens, ...]
    """For each row, the indices of its tokens in the sequence."""

    def build_mask(self) -> npt.NDArray[np.bool_]:
        """Build the attention mask, shape (L, L): True where the line's token attends to the column's."""
        on_path = np.zeros((len(self.paths), len(self.tokens)), dtype=bool)
        for row, path in enumerate(self.paths):
            on_path[row, path] = True
        seen = on_path[self.owner]
        seen &= self.positions[None, :] <= self.positions[:, None]
        return seen


@dataclass(frozen=True)
class ModelWidths:
    """Sizes of a transformer that determine its work and memory for a token."""

    layers: int
    hidden: int
    intermediate: int
    attention: int
    """Width of the queries of all heads together."""
    linear: int
    """Weights of the matrices in all layers together."""

    def count_operations(self, tokens: int, seen: int) -> int:
        """Count the operations of a training step on `tokens` tokens that attend to `seen` tokens each."""
        attention = ATTENTION_FLOPS * self.attention * self.layers * seen
        return tokens * (LINEAR_FLOPS * self.linear + attention)

    @property
    def kept_elements(self) -> int:
        """Elements held for a token with activation checkpointing: the input of each layer, and one layer."""
        return self.layers * self.hidden + 4 * (self.attention + self.intermediate + self.hidden)


def pack_if_cheaper(
    rows: Sequence[Tokens], shareable: Sequence[int], widths: ModelWidths
) -> PackedBatch | None:
    """Pack `rows` as `pack` does; return None if padding them is about as cheap or cheaper.

    Operations and memory are compared: the mask must not take more than the saved tokens would.
    """
    packed = pack(rows, shareable)
    length, longest = len(packed.tokens), max(map(len, rows))
    padded = len(rows) * longest
    operations = widths.count_operations(length, length)
    fast = operations <= MAX_PACKED_SHARE * widths.count_operations(padded, longest)
    small = MASK_COPIES * length**2 <= (padded - length) * widths.kept_elements
    return packed if fast and small else None


def pack(rows: Sequence[Tokens], shareable: Sequence[int]) -> PackedBatch:
    """Pack `rows`, vectors of token ids, into a tree; only the first `shareable` tokens of each are shared.

    Sorted by their shareable tokens, rows are neighbours of those with which they share most, so each
    is compared with its neighbour only.
    """
    heads = [row[:most] for row, most in zip(rows, shareable, strict=True)]
    order = sorted(range(len(rows)), key=lambda row: heads[row].tolist())
    paths: list[Tokens] = [np.empty(0, dtype=np.int64)] * len(rows)
    length, before = 0, None
    shared_lengths = np.zeros(len(rows), dtype=np.int64)
    for row in order:
        shared_lengths[row] = 0 if before is None else _count_common(heads[before], heads[row])
        own = np.arange(length, length + len(rows[row]) - shared_lengths[row])
        shared = own[:0] if before is None else paths[before][: shared_lengths[row]]
        paths[row] = np.concatenate([shared, own])
        length += len(own)
        before = row
    return PackedBatch(
        tokens=np.concatenate([rows[row][shared_lengths[row] :] for row in order]),
        positions=np.concatenate([np.arange(shared_lengths[row], len(rows[row])) for row in order]),
        owner=np.concatenate([np.full(len(rows[row]) - shared_lengths[row], row) for row in order]),
        paths=tuple(paths),
    )


def _count_common(one: Tokens, other: Tokens) -> int:
    """Count the first tokens that both have in common."""
    least = min(len(one), len(other))
    different = np.flatnonzero(one[:least] != other[:least])
    return int(different[0]) if len(different) else least
