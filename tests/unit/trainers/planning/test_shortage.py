"""The kind of examples of which fewest are missing."""

from typing import Any

import pytest

from trainers.planning.method_rules import Thresholds
from trainers.planning.shortage import find_shortage


@pytest.mark.parametrize(
    ("counts", "task", "kind"),
    [
        ({"sft": 30}, "classification", "sft"),
        ({"sft": 30, "pairs": 15}, "generation", "pairs"),
        ({"sft": 45, "pairs": 15}, "generation", "sft"),
        ({"pairs": 3}, "extraction", "pairs"),
        ({}, "classification", None),
        ({"sft": 50, "pairs": 20}, "classification", None),
        ({"triplets": 40, "sft": 1}, "embedding", "triplets"),
    ],
)
def test_what_is_lacking_is_the_kind_of_which_fewest_are_missing(
    counts: dict[str, int], task: Any, kind: str | None
) -> None:
    nothing = dict.fromkeys(("sft", "pairs", "triplets"), 0)
    found = find_shortage(nothing | counts, task, Thresholds())
    assert (found.kind if found else None) == kind
