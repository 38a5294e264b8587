"""Snapshots made by hand, of searches and the triplets that come from them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from extractors.dataset.holdout_split import HoldoutRules
from extractors.dataset.snapshot import Manifest, OutcomeCounts, Snapshot, write_snapshot
from extractors.examples.prompt_keys import compute_query_key
from extractors.examples.types import Document, Examples, JudgedDocument, ReviewedRetrieval, Triplet
from extractors.values import content_id

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
SearchCase = tuple[str, str, str]
"""A query, a relevant and an irrelevant document."""


def make_triplet(number: int, asked: SearchCase) -> Triplet:
    query, positive, negative = asked
    return Triplet(
        query=query,
        positive=Document(id=f"doc-{number}", text=positive),
        negative=Document(text=negative),
        prompt_key=compute_query_key(query),
        started_at=BEGAN + timedelta(minutes=number),
    )


def make_search(number: int, asked: SearchCase) -> ReviewedRetrieval:
    query, positive, negative = asked
    return ReviewedRetrieval(
        query=query,
        documents=(
            JudgedDocument(text=negative, relevant=False),
            JudgedDocument(id=f"doc-{number}", text=positive, relevant=True),
        ),
        source_span_ids=(f"{number:016x}",),
        trace_id=f"{number:032x}",
        prompt_key=compute_query_key(query),
        started_at=BEGAN + timedelta(minutes=number),
    )


def make_search_snapshot(
    folder: Path,
    train: Sequence[SearchCase],
    validation: Sequence[SearchCase] = (),
    holdout: Sequence[SearchCase] = (),
) -> Path:
    """A snapshot of these searches below `folder`; returns its own folder."""
    nothing = OutcomeCounts(approved=0, corrected=0, rejected=0)
    made = Snapshot(
        manifest=Manifest(
            snapshot_id=content_id([train, validation, holdout]),
            target="acme/find",
            created_at=BEGAN,
            filters={},
            rules=HoldoutRules(),
            window=None,
            watermark=None,
            train={"triplets": len(train)},
            validation={"triplets": len(validation)},
            holdout=len(holdout),
            reviewed=nothing,
            held_out=nothing,
            left_out={},
        ),
        train=Examples(triplets=tuple(make_triplet(number, each) for number, each in enumerate(train))),
        validation=Examples(
            triplets=tuple(make_triplet(number, each) for number, each in enumerate(validation))
        ),
        retrievals=tuple(make_search(number, each) for number, each in enumerate(holdout)),
    )
    return write_snapshot(made, folder)
