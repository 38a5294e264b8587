"""The common beginning of an agent's prompts is computed once, and kept in a cache.

    tokens     S S S S | . . p p        S: the common beginning, of which the cache holds one row
    mask       1 1 1 1   0 0 1 1        p: what a prompt has of its own, on the right of its row
    positions  0 1 2 3   . . 4 5

This is exact where a token sees all tokens before it: the gap that the padding leaves is hidden, and no
position counts it. Where a model does not (sliding windows), rows are whole and padded on the left. So are
rows of several batches that go on together. Padding repeats the row's last token, so that a repetition
penalty, which sees what the mask hides, concerns no other token.
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
"""Tokens that a group of prompts must save to be formed: batches that are not full cost more a token."""
MOST_TOKENS = 16384
"""Most tokens of a batch, padding and answers included: its cache takes 2 GiB for each 128 KiB a token."""
MOST_PADDING = 128
"""Most padding tokens of a batch; computing more costs more than another batch, measured on a CPU."""


@dataclass(frozen=True)
class TokenBatch:
    """Rows of one length, ready for the model."""

    ids: torch.Tensor
    """(rows, length), the common beginning included."""
    mask: torch.Tensor
    """(rows, length), 1 for tokens, 0 for padding."""
    cache: DynamicCache | None
    """Keys and values that the model has computed for the rows; None where it computes all of them."""

    def build_inputs(self) -> dict[str, Any]:
        """Return the arguments of the model's forward pass over the tokens that the cache does not hold."""
        held = self.cache.get_seq_length() if self.cache is not None else 0
        positions = (self.mask.cumsum(dim=1) - 1).clamp(min=0)
        return {
            "input_ids": self.ids[:, held:],
            "attention_mask": self.mask,
            "position_ids": positions[:, held:],
            "past_key_values": self.cache,
        }

    def select_rows(self, rows: Sequence[int]) -> "TokenBatch":
        """Return some computed rows, to go on from: the cache keeps all but their last token.

        This batch cannot be used after that.
        """
        if self.cache is not None:
            self.cache.batch_select_indices(torch.tensor(rows, device=self.ids.device))
            self.cache.crop(-1)
        return TokenBatch(self.ids[rows], self.mask[rows], self.cache)


class RowCollector:
    """Collects rows from several batches, by their numbers, until they fill a batch of their own."""

    def __init__(self, most_rows: int, more: int) -> None:
        """Collect at most `most_rows` rows, to each of which `more` tokens will be added."""
        self._most_rows = most_rows
        self._more = more
        self.numbers: list[int] = []
        self._batches: list[TokenBatch] = []

    def has_room(self, rows: int, length: int) -> bool:
        """Return True if `rows` rows of this length fit beside the collected ones, or if there are none."""
        longest = max(length, *(batch.ids.shape[1] for batch in self._batches), 1)
        most = min(self._most_rows, MOST_TOKENS // (longest + self._more))
        return not self.numbers or len(self.numbers) + rows <= most

    def add(self, numbers: Sequence[int], batch: TokenBatch) -> None:
        """Add rows that the model has computed, as `TokenBatch.select_rows` returns them."""
        self.numbers += numbers
        self._batches.append(batch)

    def take(self) -> tuple[list[int], TokenBatch]:
        """Remove and return all rows, padded on the left."""
        numbers, batches = self.numbers, self._batches
        self.numbers, self._batches = [], []
        return numbers, _join(batches)


def _join(batches: Sequence[TokenBatch]) -> TokenBatch:
    """Return the rows of all `batches`, which cannot be used after that."""
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
    """The common beginning of all `prompts`, computed by `model` with the adapters that are active now."""

    def __init__(self, model: Any, prompts: Sequence[Tokens]) -> None:
        """Compute the common beginning. Gradients must be off here and in later calls."""
        self._device = model.device
        self.exact = _has_full_attention(model)
        """True if the model takes masks and caches of ours; otherwise nothing is shared."""
        self._beginning = _find_beginning(prompts) if self.exact else ()
        self._cache = DynamicCache(config=model.config)
        if self._beginning:
            ids = torch.tensor([self._beginning], device=self._device)
            model(input_ids=ids, past_key_values=self._cache, logits_to_keep=1)

    def build_batch(self, rows: Sequence[Tokens]) -> TokenBatch:
        """Return a batch of `rows`: prompts, or prompts and their answers."""
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
        return TokenBatch(ids.to(self._device), mask.to(self._device), self._copy_cache(len(rows)))

    def _copy_cache(self, rows: int) -> DynamicCache | None:
        if not self.exact:
            return None
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(rows)
        return cache


def split_into_batches(
    lengths: Sequence[int], most_rows: int, most_padding: int = MOST_TOKENS
) -> Iterator[list[int]]:
    """Yield the indices of rows of these `lengths` in batches of similar length.

    The longest rows come first, so that a lack of memory shows at once. A batch has at most `most_rows` rows,
    `most_padding` padding tokens and MOST_TOKENS tokens when padded, but always one row.
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
    """Return the numbers of `prompts` in groups that begin alike, for instance by version of a system prompt.

    Prompts that begin alike are neighbours when sorted. A part that has more in common than the whole becomes
    a group of its own where that saves enough tokens.
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
    """Yield the parts of sorted prompts that go on alike after `shared` tokens."""
    return (
        list(part) for _, part in groupby(numbers, key=lambda number: prompts[number][shared : shared + 1])
    )


def _count_shared(prompts: Sequence[Tokens], numbers: Sequence[int]) -> int:
    """Return the number of tokens that sorted prompts begin with: as many as the first and the last share."""
    if not numbers:
        return 0
    pairs = zip(prompts[numbers[0]], prompts[numbers[-1]], strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _find_beginning(prompts: Sequence[Tokens]) -> Tokens:
    """Return the common beginning without any prompt's last token, which must be computed to go on."""
    if len(prompts) < 2:
        return ()
    shared = _count_shared((min(prompts), max(prompts)), (0, 1))
    return prompts[0][: min(shared, min(map(len, prompts)) - 1)]


def _has_full_attention(model: Any) -> bool:
    """Return True if in all layers a token sees all tokens before it, and the model takes a mask of ours."""
    config = model.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    windows = kinds != {"full_attention"} or getattr(config, "sliding_window", None) is not None
    return find_inexactness(model) is None and not windows
