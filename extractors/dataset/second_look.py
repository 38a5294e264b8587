"""Reviewed traffic that a version has never seen, because it came after the version's training data."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from extractors.cleaning.quality import iterate_kinds
from extractors.dataset.build import find_prompt_keys
from extractors.dataset.holdout_split import AnyReviewed, find_common_prompts, find_group
from extractors.dataset.snapshot import Snapshot, count_examples, count_outcomes
from extractors.examples.types import Examples, Reviewed, ReviewedItem, ReviewedRetrieval
from extractors.feedback.extract import Extraction
from extractors.values import Value, content_id


class KnownTraffic(Value):
    """The traffic that a version knows from its snapshot, by training or by having been judged on it."""

    watermark: datetime
    groups: frozenset[str]
    """Sessions and traces."""
    prompt_keys: frozenset[str]

    @classmethod
    def from_snapshot(cls, snapshot: Snapshot) -> "KnownTraffic":
        """Collect everything in the snapshot, on whichever side."""
        reviewed: tuple[Reviewed, ...] = (
            *snapshot.holdout,
            *snapshot.retrievals,
            *snapshot.retention,
            *snapshot.retained_retrievals,
        )
        groups, keys = {find_group(item) for item in reviewed}, {item.prompt_key for item in reviewed}
        for side in (snapshot.train, snapshot.validation):
            for _, members in iterate_kinds(side):
                for example in members:
                    keys.update(find_prompt_keys(example))
                    if example.session_id:
                        groups.add(f"session {example.session_id}")
        return cls(
            watermark=snapshot.manifest.watermark or snapshot.manifest.created_at,
            groups=frozenset(groups),
            prompt_keys=frozenset(keys),
        )


def select_fresh_items(
    extraction: Extraction, known: KnownTraffic, *, need: int, common_sessions: int
) -> Sequence[Reviewed]:
    """Return the oldest reviewed items after the watermark whose session and prompt are not `known`.

    It stops once `need` of them have gold. Prompts that `common_sessions` share (a greeting) are left out.
    """
    common = find_common_prompts(extraction.retrievals or extraction.items, common_sessions)
    if extraction.retrievals:
        return _select_fresh(extraction.retrievals, known, need, common)
    return _select_fresh(extraction.items, known, need, common)


def _select_fresh(
    items: Iterable[AnyReviewed], known: KnownTraffic, need: int, common: Collection[str]
) -> list[AnyReviewed]:
    later = (
        item
        for item in items
        if item.started_at > known.watermark
        and find_group(item) not in known.groups
        and item.prompt_key not in known.prompt_keys.union(common)
    )
    once = {(item.id, item.outcome): item for item in later}
    ordered = sorted(once.values(), key=lambda item: (item.started_at, item.source_span_ids))
    ends = [number for number, item in enumerate(ordered, start=1) if item.outcome != "rejected"]
    return ordered[: ends[need - 1]] if len(ends) >= need else ordered


def count_with_gold(items: Sequence[Reviewed]) -> int:
    """Count the items with gold: those that can be scored."""
    return sum(item.outcome != "rejected" for item in items)


def build_fresh_snapshot(
    items: Sequence[Reviewed], trained_on: Snapshot, now: datetime, *, common: Collection[str] = ()
) -> Snapshot:
    """Build a dataset only to judge by, with `items` as its holdout and the retention set of `trained_on`.

    Prompts that are `common` or known to the version do not belong to the traffic that the items stand for.
    """
    nothing = count_examples(Examples())
    manifest = trained_on.manifest.model_copy(
        update={
            "snapshot_id": content_id([trained_on.id, [[item.id, item.outcome] for item in items]]),
            "created_at": now,
            "window": None,
            "watermark": max((item.started_at for item in items), default=None),
            "train": nothing,
            "validation": nothing,
            "holdout": len(items),
            "reviewed": count_outcomes(items),
            "held_out": count_outcomes(items),
            "excluded_prompts": tuple(
                sorted(
                    KnownTraffic.from_snapshot(trained_on).prompt_keys.union(
                        trained_on.manifest.excluded_prompts, common
                    )
                )
            ),
            "left_out": {},
            "statistics": None,
            "files": {},
        }
    )
    return Snapshot(
        manifest=manifest,
        holdout=tuple(item for item in items if isinstance(item, ReviewedItem)),
        retrievals=tuple(item for item in items if isinstance(item, ReviewedRetrieval)),
        retention=trained_on.retention,
        retained_retrievals=trained_on.retained_retrievals,
    )
