"""Prompts of one agent begin alike: what they all begin with is computed once, and kept in a cache.

    tokens     S S S S | . . p p        S: the common beginning, of which the cache holds one row
    mask       1 1 1 1   0 0 1 1        p: what a prompt has of its own, on the right of its row
    positions  0 1 2 3   . . 4 5

It is exact where a token sees all that stand before it: the hole that the padding leaves is hidden, and
no position counts it. Where a model does otherwise (sliding windows), rows are whole and padded on the left.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from transformers import DynamicCache

from trainers.shared_forward import is_exact_for

Tokens = tuple[int, ...]
MOST_TOKENS = 16384
"""Tokens of a batch, padding and answers included: its cache takes 2 GiB for each 128 KiB a token."""


@dataclass(frozen=True)
class Batch:
    """Rows of one length, ready for the model."""

    ids: torch.Tensor
    """(rows, length), the common beginning included."""
    mask: torch.Tensor
    """(rows, length), 1 for tokens, 0 for padding."""
    cache: DynamicCache | None
    """What the model has computed of the rows; None: nothing, and it makes a cache of its own if it wants."""

    def inputs(self) -> dict[str, Any]:
        """For the model's forward pass over what the cache does not hold yet."""
        held = self.cache.get_seq_length() if self.cache is not None else 0
        positions = (self.mask.cumsum(dim=1) - 1).clamp(min=0)
        return {
            "input_ids": self.ids[:, held:],
            "attention_mask": self.mask,
            "position_ids": positions[:, held:],
            "past_key_values": self.cache,
        }


class SharedPrompts:
    """What `model`, as it is now (its adapters on or off), makes of the beginning of all `prompts`."""

    def __init__(self, model: Any, prompts: Sequence[Tokens], *, pad: int) -> None:
        """`pad` is the padding token. Call it, and use it, without gradients."""
        self._device = model.device
        self._pad = pad
        self.exact = _sees_all(model)
        """Whether the model takes masks and caches of ours; without it nothing is shared."""
        self._beginning = _common(prompts) if self.exact else ()
        self._cache = DynamicCache(config=model.config)
        if self._beginning:
            ids = torch.tensor([self._beginning], device=self._device)
            model(input_ids=ids, past_key_values=self._cache, logits_to_keep=1)

    def batch(self, rows: Sequence[Tokens]) -> Batch:
        """`rows` are prompts, with or without something after them."""
        shared = len(self._beginning)
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), self._pad)
        mask = torch.zeros_like(ids)
        ids[:, :shared] = torch.tensor(self._beginning, dtype=torch.long)
        mask[:, :shared] = 1
        for row, tokens in enumerate(rows):
            own = tokens[shared:]
            ids[row, longest - len(own) :] = torch.tensor(own)
            mask[row, longest - len(own) :] = 1
        return Batch(ids.to(self._device), mask.to(self._device), self._copies(len(rows)))

    def _copies(self, rows: int) -> DynamicCache | None:
        if not self.exact:
            return None
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(rows)
        return cache


def in_batches(lengths: Sequence[int], most_rows: int) -> Iterator[list[int]]:
    """Indices of rows of such `lengths`: like ones together, the longest first, what lacks memory at once.

    A batch has at most `most_rows`, and no more than MOST_TOKENS when padded, but one row in any case.
    """
    left = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    while left:
        rows = max(1, min(most_rows, MOST_TOKENS // max(1, lengths[left[0]])))
        yield left[:rows]
        left = left[rows:]


def _common(prompts: Sequence[Tokens]) -> Tokens:
    """The tokens that all begin with, but for each prompt's last, which has to be computed to go on."""
    if len(prompts) < 2:
        return ()
    pairs = zip(min(prompts), max(prompts), strict=False)
    same = tuple(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return same[: min(map(len, prompts)) - 1]


def _sees_all(model: Any) -> bool:
    """Whether all layers let a token see all that stand before it, and take a mask that says otherwise."""
    config = model.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    windows = kinds != {"full_attention"} or getattr(config, "sliding_window", None) is not None
    return is_exact_for(model)[0] and not windows
