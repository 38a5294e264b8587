"""Small datasets, built from hand-made items."""

from collections.abc import Sequence
from typing import Any

from extractors.dataset.holdout_split import HoldoutRules, Window
from extractors.dataset.snapshot import Provenance, Snapshot, build_snapshot
from extractors.examples.types import ReviewedItem
from extractors.feedback.extract import Extraction
from tests.support.traffic import NOON

SMALL = HoldoutRules(share=0.2, least=4, greatest=8, common_prompt_sessions=3, retention_share=0)


def build_small(
    items: Sequence[ReviewedItem], rules: HoldoutRules = SMALL, window: Window | None = None, **changes: Any
) -> Snapshot:
    """Build a snapshot of `items` at noon; `changes` replace arguments of `build_snapshot`."""
    given = {"now": NOON, "provenance": Provenance("acme/routing", {"kind": "LLM"})}
    return build_snapshot(Extraction(items=tuple(items)), rules, window=window, **{**given, **changes})


def list_numbers(items: Sequence[ReviewedItem]) -> list[int]:
    """Return the numbers that the items were made with."""
    return [int(found.trace_id.removeprefix("trace-")) for found in items]


def list_learned_answers(made: Snapshot) -> set[str]:
    """Return all answers that are trained or validated on."""
    return {example.completion.content for example in (*made.train.sft, *made.validation.sft)}
