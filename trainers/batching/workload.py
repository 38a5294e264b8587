"""The workload of a training: its tokens, as batches hold them."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from extractors.values import Value
from trainers.batching.prefix_tree import ModelWidths, Tokens, pack_if_cheaper
from trainers.batching.tokenise import IGNORE_INDEX

MAX_BATCHES = 64
"""Batches that are measured; a larger set is judged by this sample."""


class Workload(Value):
    """Numbers that determine a training's memory and time."""

    examples: int
    tokens: int
    """Tokens of all rows, a shared prefix counted for each, as `tokens_per_second` counts them."""
    validation_tokens: int
    largest_batch: int
    """Tokens that the largest batch computes: shared prefixes once, padding included."""
    largest_mask: int
    """Pairs of tokens in the largest attention mask of a batch."""
    most_labels: int
    """Tokens to learn in the batch that has most of them."""
    shared: float = 0.0
    """Share of the batches that compute shared prefixes once, 0 to 1."""


def measure_workload(
    features: Sequence[dict[str, Any]],
    validation_tokens: int,
    micro_batch: int,
    *,
    widths: ModelWidths | None,
) -> Workload:
    """Measure the workload of a training set's `features` (see `tokenise.py`) in batches of `micro_batch`.

    `widths` are those of a model whose batches are packed where that is cheaper; None: all stay padded.
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
    """Yield (ids, number of shareable first ids, number of labels) for each row of the example."""
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
