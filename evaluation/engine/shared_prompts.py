"""Prompts of one agent begin alike: what they all begin with is computed once, and kept in a cache.

    tokens     S S S S | . . p p        S: the common beginning, of which the cache holds one row
    mask       1 1 1 1   0 0 1 1        p: what a prompt has of its own, on the right of its row
    positions  0 1 2 3   . . 4 5

It is exact where a token sees all that stand before it: the hole that the padding leaves is hidden, and
no position counts it. Where a model does otherwise (sliding windows), rows are whole and padded on the left;
so are rows of several batches that go on together. Padding repeats the row's last token, so that a penalty on
repetitions, which sees what the mask hides, means no other token.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import Any

import torch
from torch.nn import functional
from transformers import DynamicCache

from trainers.batching.shared_forward import find_inexactness

Tokens = tuple[int, ...]
LEAST_SAVED = 512
"""Tokens that a group of prompts must save to be one: batches that are not full cost more a token."""
MOST_TOKENS = 16384
"""Tokens of a batch, padding and answers included: its cache takes 2 GiB for each 128 KiB a token."""
MOST_PADDING = 128
"""Tokens of a batch's padding; to compute more costs more than another batch, measured on a CPU."""


@dataclass(frozen=True)
class TokenBatch:
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

    def again(self, rows: Sequence[int]) -> "TokenBatch":
        """Some rows that the model has computed, to go on from: all but their last token is kept.

        This batch can then be used no more.
        """
        if self.cache is not None:
            self.cache.batch_select_indices(torch.tensor(rows, device=self.ids.device))
            self.cache.crop(-1)
        return TokenBatch(self.ids[rows], self.mask[rows], self.cache)


class RowCollector:
    """Rows from several batches, by their numbers, until they are a batch of their own."""

    def __init__(self, most_rows: int, more: int) -> None:
        """`more` tokens will be added to each row."""
        self._most_rows = most_rows
        self._more = more
        self.numbers: list[int] = []
        self._batches: list[TokenBatch] = []

    def has_room(self, rows: int, length: int) -> bool:
        """Whether so many rows of this length may come with those that are here, if any are."""
        longest = max(length, *(batch.ids.shape[1] for batch in self._batches), 1)
        most = min(self._most_rows, MOST_TOKENS // (longest + self._more))
        return not self.numbers or len(self.numbers) + rows <= most

    def add(self, numbers: Sequence[int], batch: TokenBatch) -> None:
        """Take rows that the model has computed, as `TokenBatch.again` gives them."""
        self.numbers += numbers
        self._batches.append(batch)

    def take(self) -> tuple[list[int], TokenBatch]:
        """All rows, filled up on the left, which are then here no more."""
        numbers, batches = self.numbers, self._batches
        self.numbers, self._batches = [], []
        return numbers, _join(batches)


def _join(batches: Sequence[TokenBatch]) -> TokenBatch:
    """The rows of all, which can then be used no more."""
    if len(batches) == 1:
        return batches[0]
    longest = max(batch.ids.shape[1] for batch in batches)
    lacking = [longest - batch.ids.shape[1] for batch in batches]
    of_each = list(zip(batches, lacking, strict=True))
    ids = [torch.cat([batch.ids[:, -1:].expand(-1, left), batch.ids], dim=1) for batch, left in of_each]
    mask = [functional.pad(batch.mask, (left, 0)) for batch, left in of_each]
    caches = [batch.cache for batch in batches if batch.cache is not None]
    for first, *others in zip(*(cache.layers for cache in caches), strict=True):
        for name in ("keys", "values"):
            held = [getattr(layer, name) for layer in (first, *others)]
            # (rows, heads, tokens, size of a head)
            filled = [functional.pad(each, (0, 0, left, 0)) for each, left in zip(held, lacking, strict=True)]
            setattr(first, name, torch.cat(filled))
            for layer in others:
                setattr(layer, name, None)
    return TokenBatch(torch.cat(ids), torch.cat(mask), caches[0] if caches else None)


class SharedPrompts:
    """What `model`, as it is now (its adapters on or off), makes of the beginning of all `prompts`."""

    def __init__(self, model: Any, prompts: Sequence[Tokens]) -> None:
        """Call it, and use it, without gradients."""
        self._device = model.device
        self.exact = _has_full_attention(model)
        """Whether the model takes masks and caches of ours; without it nothing is shared."""
        self._beginning = _find_beginning(prompts) if self.exact else ()
        self._cache = DynamicCache(config=model.config)
        if self._beginning:
            ids = torch.tensor([self._beginning], device=self._device)
            model(input_ids=ids, past_key_values=self._cache, logits_to_keep=1)

    def batch(self, rows: Sequence[Tokens]) -> TokenBatch:
        """`rows` are prompts, with or without something after them."""
        shared = len(self._beginning)
        longest = max(map(len, rows))
        ids = torch.tensor([[row[-1]] * longest for row in rows])
        mask = torch.zeros_like(ids)
        ids[:, :shared] = torch.tensor(self._beginning, dtype=torch.long)
        mask[:, :shared] = 1
        for row, tokens in enumerate(rows):
            own = tokens[shared:]
            ids[row, longest - len(own) :] = torch.tensor(own)
            mask[row, longest - len(own) :] = 1
        return TokenBatch(ids.to(self._device), mask.to(self._device), self._copies(len(rows)))

    def _copies(self, rows: int) -> DynamicCache | None:
        if not self.exact:
            return None
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(rows)
        return cache


def split_into_batches(
    lengths: Sequence[int], most_rows: int, most_padding: int = MOST_TOKENS
) -> Iterator[list[int]]:
    """Indices of rows of such `lengths`: like ones together, the longest first, what lacks memory at once.

    A batch has at most `most_rows`, `most_padding`, and MOST_TOKENS when padded, but one row in any case.
    """
    batch: list[int] = []
    padding = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        longest = lengths[batch[0]] if batch else lengths[row]
        padding += longest - lengths[row]
        most = min(most_rows, MOST_TOKENS // max(1, longest))
        if batch and (len(batch) >= most or padding > most_padding):
            yield batch
            batch, padding = [], 0
        batch.append(row)
    if batch:
        yield batch


def group_by_beginning(prompts: Sequence[Tokens]) -> list[list[int]]:
    """Numbers of `prompts`, in groups that each begin alike: one version of a system prompt, and the next.

    In the sorted prompts, what begins alike stands together; a part that shares more than all do becomes
    a group of its own where that saves tokens enough.
    """
    groups, parts = [], [sorted(range(len(prompts)), key=prompts.__getitem__)]
    while parts:
        group: list[int] = []
        whole = parts.pop()
        least = _count_shared(prompts, whole)
        for part in _split(prompts, whole, least):
            saves = (_count_shared(prompts, part) - least) * (len(part) - 1) - least
            if len(part) < len(whole) and saves >= LEAST_SAVED:
                parts.append(part)
            else:
                group += part
        groups.append(group)
    return [group for group in groups if group]


def _split(prompts: Sequence[Tokens], numbers: Sequence[int], shared: int) -> Iterator[list[int]]:
    """The parts of sorted prompts that go on alike after so many shared tokens."""
    return (
        list(part) for _, part in groupby(numbers, key=lambda number: prompts[number][shared : shared + 1])
    )


def _count_shared(prompts: Sequence[Tokens], numbers: Sequence[int]) -> int:
    """How many tokens sorted prompts all begin with: as many as the first and the last of them."""
    if not numbers:
        return 0
    pairs = zip(prompts[numbers[0]], prompts[numbers[-1]], strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _find_beginning(prompts: Sequence[Tokens]) -> Tokens:
    """What all begin with, but for each prompt's last token, which has to be computed to go on."""
    if len(prompts) < 2:
        return ()
    shared = _count_shared((min(prompts), max(prompts)), (0, 1))
    return prompts[0][: min(shared, min(map(len, prompts)) - 1)]


def _has_full_attention(model: Any) -> bool:
    """Whether all layers let a token see all that stand before it, and take a mask that says otherwise."""
    config = model.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    windows = kinds != {"full_attention"} or getattr(config, "sliding_window", None) is not None
    return find_inexactness(model) is None and not windows
