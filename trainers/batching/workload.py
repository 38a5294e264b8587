"""How much there is to compute: a training set's tokens, as its batches hold them."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from extractors.values import Value
from trainers.batching.prefix_tree import ModelWidths, Tokens, pack_if_cheaper
from trainers.batching.tokenise import IGNORE_INDEX

MAX_BATCHES = 64
"""Batches that are looked at; a large set is as its sample."""


class Workload(Value):
    """What a training has to do."""

    examples: int
    tokens: int
    """Of all rows, a shared beginning counted for each: what `tokens_per_second` counts."""
    validation_tokens: int
    largest_batch: int
    """Tokens that are computed at once, at most: shared beginnings once, padding included."""
    largest_mask: int
    """Pairs of tokens that a batch's attention mask holds, at most."""
    most_labels: int
    """Tokens to learn in a batch, at most."""
    shared: float = 0.0
    """Share of the batches that hold shared beginnings once."""


def measure_workload(
    features: Sequence[dict[str, Any]],
    validation_tokens: int,
    micro_batch: int,
    *,
    widths: ModelWidths | None,
) -> Workload:
    """The workload of a training set's `features` (see `training_set.py`) in such batches.

    `widths` are those of a model whose batches share what is worth sharing; None: they stay padded.
    """
    rows = [list(_to_rows(feature)) for feature in features]
    order = list(range(len(rows)))
    random.Random(0).shuffle(order)  # noqa: S311 - a sample
    batches = [
        [row for index in order[start : start + micro_batch] for row in rows[index]]
        for start in range(0, len(order), micro_batch)
    ]
    computed = [_measure_batch(batch, widths) for batch in batches[:MAX_BATCHES]]
    return Workload(
        examples=len(features),
        tokens=sum(len(ids) for example in rows for ids, _, _ in example),
        validation_tokens=validation_tokens,
        largest_batch=max(batch.tokens for batch in computed),
        largest_mask=max(batch.mask for batch in computed),
        most_labels=max(batch.labels for batch in computed),
        shared=sum(batch.packed for batch in computed) / len(computed),
    )


def _to_rows(feature: dict[str, Any]) -> Iterator[tuple[Tokens, int, int]]:
    """(ids, how many first ones may be shared, labels) of each row that the example becomes."""
    if "labels" in feature:
        labels = np.array(feature["labels"]) != IGNORE_INDEX
        first = int(labels.argmax()) if labels.any() else len(labels)
        yield np.array(feature["input_ids"]), max(0, first - 1), int(labels.sum())
        return
    prompt = feature["prompt_ids"]
    for name in ("chosen_ids", "rejected_ids", "completion_ids"):
        if name in feature:
            yield np.array([*prompt, *feature[name]]), len(prompt) - 1, len(feature[name])


class _BatchSize(Value):
    tokens: int
    mask: int
    labels: int
    packed: bool


def _measure_batch(batch: list[tuple[Tokens, int, int]], widths: ModelWidths | None) -> _BatchSize:
    rows, shareable, labels = zip(*batch, strict=True)
    packed = pack_if_cheaper(rows, shareable, widths) if widths else None
    longest = max(map(len, rows))
    return _BatchSize(
        tokens=len(packed.tokens) if packed else len(rows) * longest,
        mask=len(packed.tokens) ** 2 if packed else len(rows) * longest**2,
        labels=sum(labels),
        packed=packed is not None,
    )
