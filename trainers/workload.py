"""How much there is to compute: a training set's tokens, as its batches hold them."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from extractors.values import Value
from trainers.prefix_shared import Tokens, pack

MOST_BATCHES = 64
"""Batches that are looked at; a large set is as its sample."""
LEAST_SAVING = 0.25
"""As in `shared_forward.py`: below it, a batch stays padded."""
IGNORED = -100


class Workload(Value):
    """What a training has to do."""

    examples: int
    tokens: int
    """Of all rows, a shared beginning counted for each: what `tokens_per_second` counts."""
    validation_tokens: int
    largest_batch: int
    """Tokens that are computed at once, at most: shared beginnings once, padding included."""
    most_labels: int
    """Tokens to learn in a batch, at most."""


def measured(
    features: Sequence[dict[str, Any]], validation_tokens: int, micro_batch: int, *, share: bool
) -> Workload:
    """The workload of a training set's `features` (see `training_set.py`) in such batches."""
    rows = [list(_rows(feature)) for feature in features]
    order = list(range(len(rows)))
    random.Random(0).shuffle(order)  # noqa: S311 - a sample
    batches = [
        [row for index in order[start : start + micro_batch] for row in rows[index]]
        for start in range(0, len(order), micro_batch)
    ]
    looked_at = batches[:MOST_BATCHES]
    return Workload(
        examples=len(features),
        tokens=sum(len(ids) for example in rows for ids, _, _ in example),
        validation_tokens=validation_tokens,
        largest_batch=max(_computed(batch, share) for batch in looked_at),
        most_labels=max(sum(labels for _, _, labels in batch) for batch in looked_at),
    )


def _rows(feature: dict[str, Any]) -> Iterator[tuple[Tokens, int, int]]:
    """(ids, how many first ones may be shared, labels) of each row that the example becomes."""
    if "labels" in feature:
        labels = np.array(feature["labels"]) != IGNORED
        first = int(labels.argmax()) if labels.any() else len(labels)
        yield np.array(feature["input_ids"]), max(0, first - 1), int(labels.sum())
        return
    prompt = feature["prompt_ids"]
    for name in ("chosen_ids", "rejected_ids", "completion_ids"):
        if name in feature:
            yield np.array([*prompt, *feature[name]]), len(prompt) - 1, len(feature[name])


def _computed(batch: list[tuple[Tokens, int, int]], share: bool) -> int:
    padded = len(batch) * max(len(ids) for ids, _, _ in batch)
    if not share:
        return padded
    packed = len(pack([ids for ids, _, _ in batch], [first for _, first, _ in batch]).tokens)
    return packed if padded - packed >= LEAST_SAVING * padded else padded
