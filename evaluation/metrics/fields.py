"""Figures of an extraction field by field, for answers that are partly right.

A field is one value with the path to it. Positions in a list are not part of the path, so the order of a
list does not count (the flattening of Kim et al. 2022, "Donut"). Two entries of a list that swapped a value
therefore show only in the accuracy. Pure functions: texts in, figures out.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from evaluation.metrics.scoring import read_json
from extractors.values import Value

Field = tuple[tuple[str | None, ...], str, Any]
"""Path (None stands for any place in a list), type and value of a leaf, or of an empty list or object."""


class _Counts(Value):
    """The numbers of fields of one item."""

    right: int
    answered: int
    gold: int
    """At least 1: an empty object is a field, too."""
    valid: bool


def score_fields(answers: Sequence[str], golds: Sequence[str]) -> tuple[dict[str, float], ...]:
    """Return `field_f1` of each item, 0 to 1: 0 where the answer is no JSON.

    The figures of an item whose gold answer is no JSON are empty.
    """
    return tuple(
        {} if counts is None else {"field_f1": 2 * counts.right / (counts.answered + counts.gold)}
        for counts in _count_all(answers, golds)
    )


def compute_field_figures(answers: Sequence[str], golds: Sequence[str]) -> dict[str, float]:
    """Return `field_precision`, `field_recall` and `field_micro_f1` (their harmonic mean) over all fields.

    `valid_json_rate` is over the items. Items whose gold answer is no JSON are left out; the figures are
    empty where none is left.
    """
    items = [counts for counts in _count_all(answers, golds) if counts is not None]
    if not items:
        return {}
    right = sum(item.right for item in items)
    answered, gold = sum(item.answered for item in items), sum(item.gold for item in items)
    return {
        "field_precision": right / answered if answered else 0.0,
        "field_recall": right / gold,
        "field_micro_f1": 2 * right / (answered + gold),
        "valid_json_rate": sum(item.valid for item in items) / len(items),
    }


def count_fields(found: Any) -> Counter[Field]:
    """Count each field in a value that `read_json` returned."""
    counted: Counter[Field] = Counter()
    left: list[tuple[tuple[str | None, ...], Any]] = [((), found)]
    while left:
        path, value = left.pop()
        if isinstance(value, dict) and value:
            left += [((*path, name), member) for name, member in value.items()]
        elif isinstance(value, list) and value:
            left += [((*path, None), entry) for entry in value]
        else:
            counted[path, *_normalise_leaf(value)] += 1
    return counted


def _normalise_leaf(value: Any) -> tuple[str, Any]:
    """Return the type and value by which leaves are equal: 1 is 1.0, but neither true nor "1"."""
    if isinstance(value, bool):
        return "truth", value
    if isinstance(value, int | float):
        return "number", value
    if isinstance(value, str):
        return "text", value.strip()
    return ("null" if value is None else type(value).__name__), None


def _count_all(answers: Sequence[str], golds: Sequence[str]) -> list[_Counts | None]:
    return [_count(answer, gold) for answer, gold in zip(answers, golds, strict=True)]


def _count(answer: str, gold: str) -> _Counts | None:
    wanted, said = read_json(gold), read_json(answer)
    if wanted is None:
        return None
    theirs, ours = count_fields(wanted), Counter[Field]() if said is None else count_fields(said)
    return _Counts(
        right=(theirs & ours).total(), answered=ours.total(), gold=theirs.total(), valid=said is not None
    )
