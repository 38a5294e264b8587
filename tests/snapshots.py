"""Snapshots made by hand, of routing questions with their destinations."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from extractors.examples import Examples, Message, Outcome, ReviewedItem
from extractors.snapshot import Manifest, Outcomes, Snapshot, write_snapshot
from extractors.splits import HoldoutRules
from extractors.values import content_id

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
Asked = tuple[str, str]
"""A question and its destination."""


def reviewed(
    number: int, asked: Asked, *, system: str = "Route.", outcome: Outcome = "corrected"
) -> ReviewedItem:
    """A call that was answered with `dunno`, unless approved."""
    question, destination = asked
    gold = None if outcome == "rejected" else Message(role="assistant", content=destination)
    answered = (
        gold if gold is not None and outcome == "approved" else Message(role="assistant", content="dunno")
    )
    return ReviewedItem(
        prompt=(Message(role="system", content=system), Message(role="user", content=question)),
        response=answered,
        outcome=outcome,
        gold=gold,
        source_span_ids=(f"{number:016x}",),
        trace_id=f"{number:032x}",
        prompt_key=content_id(question),
        started_at=BEGAN + timedelta(minutes=number),
    )


def snapshot_in(
    folder: Path,
    train: Sequence[ReviewedItem],
    validation: Sequence[ReviewedItem] = (),
    holdout: Sequence[ReviewedItem] = (),
) -> Path:
    """A snapshot of these items below `folder`; returns its own folder."""
    sides = [[item.id for item in side] for side in (train, validation, holdout)]
    nothing = Outcomes(approved=0, corrected=0, rejected=0)
    manifest = Manifest(
        snapshot_id=content_id(sides),
        target="acme/routing",
        created_at=BEGAN,
        filters={},
        rules=HoldoutRules(),
        window=None,
        watermark=None,
        train={"sft": len(train)},
        validation={"sft": len(validation)},
        holdout=len(holdout),
        reviewed=nothing,
        held_out=nothing,
        left_out={},
    )
    made = Snapshot(
        manifest=manifest,
        train=Examples(sft=tuple(item.to_example() for item in train)),
        validation=Examples(sft=tuple(item.to_example() for item in validation)),
        holdout=tuple(holdout),
    )
    return write_snapshot(made, folder)
