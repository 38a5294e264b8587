"""Snapshots made by hand, of routing questions with their destinations, for every method."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from extractors.dataset.holdout_split import HoldoutRules
from extractors.dataset.snapshot import Manifest, OutcomeCounts, Snapshot, write_snapshot
from extractors.examples.types import (
    Examples,
    Message,
    Outcome,
    PreferencePair,
    ReviewedItem,
    SFTExample,
    Trajectory,
    UnpairedPreference,
)
from extractors.values import content_id

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
RoutingCase = tuple[str, str]
"""A question and its destination."""


def make_item(
    number: int, asked: RoutingCase, *, system: str = "Route.", outcome: Outcome = "corrected"
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


def make_example(number: int, asked: RoutingCase, *, system: str = "Route.") -> SFTExample:
    """The question with its destination as the answer."""
    return make_item(number, asked, system=system).to_example()


def make_pair(number: int, asked: RoutingCase, worse: str, *, system: str = "Route.") -> PreferencePair:
    """The destination rather than `worse`."""
    example = make_example(number, asked, system=system)
    return PreferencePair(
        prompt=example.prompt,
        chosen=example.completion,
        rejected=Message(role="assistant", content=worse),
        prompt_key=example.prompt_key,
        preferred_by="correction",
        started_at=example.started_at,
    )


def make_vote(
    number: int, asked: RoutingCase, worse: str, *, desirable: bool, system: str = "Route."
) -> UnpairedPreference:
    """The destination with a thumb up, or `worse` with a thumb down."""
    example = make_example(number, asked, system=system)
    said = example.completion if desirable else Message(role="assistant", content=worse)
    return UnpairedPreference(
        prompt=example.prompt,
        completion=said,
        prompt_key=example.prompt_key,
        desirable=desirable,
        started_at=example.started_at,
    )


def make_conversation(number: int, turns: Sequence[RoutingCase], *, system: str = "Route.") -> Trajectory:
    """Questions one after the other, each answered with its destination; all answers are learned."""
    examples = [make_example(number + place, asked, system=system) for place, asked in enumerate(turns)]
    messages = [message for each in examples for message in (each.prompt[-1], each.completion)]
    return Trajectory(
        messages=(examples[0].prompt[0], *messages),
        learned=tuple(range(2, len(messages) + 1, 2)),
        outcome="approved",
        prompt_keys=tuple(each.prompt_key for each in examples),
        started_at=examples[-1].started_at,
    )


def make_snapshot(
    folder: Path,
    train: Examples,
    validation: Examples | None = None,
    holdout: Sequence[ReviewedItem] = (),
) -> Path:
    """A snapshot of these examples below `folder`; returns its own folder."""
    validation = validation or Examples()
    nothing = OutcomeCounts(approved=0, corrected=0, rejected=0)
    manifest = Manifest(
        snapshot_id=content_id([train.model_dump(mode="json"), [item.id for item in holdout]]),
        target="acme/routing",
        created_at=BEGAN,
        filters={},
        rules=HoldoutRules(),
        window=None,
        watermark=None,
        train=_counts(train),
        validation=_counts(validation),
        holdout=len(holdout),
        reviewed=nothing,
        held_out=nothing,
        left_out={},
    )
    made = Snapshot(manifest=manifest, train=train, validation=validation, holdout=tuple(holdout))
    return write_snapshot(made, folder)


def _counts(examples: Examples) -> dict[str, int]:
    return {kind: len(getattr(examples, kind)) for kind in Examples.model_fields}
