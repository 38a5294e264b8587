"""A frozen, content-addressed dataset: train, validation and holdout as Parquet, with a manifest.

<folder>/<snapshot id>/train.parquet  validation.parquet  holdout.parquet  manifest.json
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from extractors.columns import read_columns, write_columns
from extractors.examples import ReviewedItem, SFTExample
from extractors.splits import HoldoutRules, LeftOut, Window, split, validation_items
from extractors.values import LearndError, Value, content_id, file_digest

MANIFEST = "manifest.json"
TRAIN, VALIDATION, HOLDOUT = "train.parquet", "validation.parquet", "holdout.parquet"
FILES = (TRAIN, VALIDATION, HOLDOUT)
ADVICE = "restore the folder from a back-up, or remove it: the next cycle builds a snapshot again"


class SnapshotDamaged(LearndError):
    """A snapshot's files are missing, or are not what its manifest says."""


class Outcomes(Value):
    """Reviewed items by what people said."""

    approved: int
    corrected: int
    rejected: int
    """Without a correction: there is no gold."""


class Manifest(Value):
    """What a snapshot holds and where it came from."""

    schema_version: Literal[1] = 1
    snapshot_id: str
    target: str
    """`tenant/agent`."""
    created_at: datetime
    filters: dict[str, Any]
    """Which spans and annotations counted, as the settings say it."""
    rules: HoldoutRules
    window: Window | None
    """Where the holdout lies; hand it to the next `build_snapshot`."""
    watermark: datetime | None
    """Start of the newest reviewed item."""
    train: int
    validation: int
    holdout: int
    reviewed: Outcomes
    """All items that the snapshot was built from."""
    held_out: Outcomes
    left_out: dict[str, int]
    """Items that stand on no side, by reason in words."""
    files: dict[str, str] = {}
    """File name to SHA-256, once written."""


class Snapshot(Value):
    """An immutable dataset."""

    manifest: Manifest
    train: tuple[SFTExample, ...]
    validation: tuple[SFTExample, ...]
    holdout: tuple[ReviewedItem, ...]

    @property
    def id(self) -> str:
        return self.manifest.snapshot_id


def build_snapshot(
    items: Sequence[ReviewedItem],
    rules: HoldoutRules,
    *,
    window: Window | None,
    now: datetime,
    target: str,
    filters: Mapping[str, Any],
) -> Snapshot:
    """The dataset that `items` make; the same items, rules, window and filters give the same id.

    `window` is that of the target's last snapshot, None at first. The holdout comes first: with
    few items everything is held out and `train` is empty, so look at the counts before training.
    """
    sides = split(items, rules, window)
    taught, left_out = _teaching(sides.train)
    validating = validation_items(taught, rules.validation_share)
    train = tuple(item.to_example() for item in taught if item.id not in validating)
    validation = tuple(item.to_example() for item in taught if item.id in validating)
    reasons = Counter(sides.left_out) + left_out
    manifest = Manifest(
        snapshot_id=_snapshot_id(target, filters, rules, sides.window, (train, validation, sides.holdout)),
        target=target,
        created_at=now,
        filters=dict(filters),
        rules=rules,
        window=sides.window,
        watermark=max((item.started_at for item in items), default=None),
        train=len(train),
        validation=len(validation),
        holdout=len(sides.holdout),
        reviewed=_outcomes(items),
        held_out=_outcomes(sides.holdout),
        left_out={reason.value: count for reason, count in sorted(reasons.items())},
    )
    return Snapshot(manifest=manifest, train=train, validation=validation, holdout=sides.holdout)


def _snapshot_id(
    target: str,
    filters: Mapping[str, Any],
    rules: HoldoutRules,
    window: Window | None,
    sides: Iterable[Sequence[Value]],
) -> str:
    described = [value and value.model_dump(mode="json") for value in (rules, window)]
    content = [[record.model_dump(mode="json") for record in side] for side in sides]
    return content_id([target, dict(filters), described, content])


def _teaching(items: Iterable[ReviewedItem]) -> tuple[list[ReviewedItem], Counter[LeftOut]]:
    """Items with gold, one for each prompt with its newest answer, oldest first."""
    left_out: Counter[LeftOut] = Counter()
    newest: dict[str, ReviewedItem] = {}
    for item in items:
        asked = content_id([[message.model_dump() for message in item.prompt], list(item.tools)])
        earlier = newest.get(asked)
        if item.gold is None:
            left_out[LeftOut.NO_GOLD] += 1
            if earlier is not None and earlier.gold == item.response:
                left_out[LeftOut.REJECTED_LATER] += 1
                del newest[asked]
            continue
        if earlier is not None:
            left_out[LeftOut.REPEATED if earlier.gold == item.gold else LeftOut.ANSWERED_ANEW] += 1
            del newest[asked]
        newest[asked] = item
    return list(newest.values()), left_out


def _outcomes(items: Iterable[ReviewedItem]) -> Outcomes:
    counts = Counter(item.outcome for item in items)
    return Outcomes(approved=counts["approved"], corrected=counts["corrected"], rejected=counts["rejected"])


def write_snapshot(snapshot: Snapshot, folder: Path) -> Path:
    """Write the snapshot below `folder` and return its own folder, named by its id.

    Written aside and renamed: it is there whole or not at all. One that is there stays as it is.
    """
    final = folder / snapshot.id
    if final.exists():
        try:
            read_snapshot(final)
        except SnapshotDamaged:
            shutil.rmtree(final)
        else:
            return final
    aside = folder / f".writing-{snapshot.id}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    write_columns(snapshot.train, SFTExample, aside / TRAIN)
    write_columns(snapshot.validation, SFTExample, aside / VALIDATION)
    write_columns(snapshot.holdout, ReviewedItem, aside / HOLDOUT)
    files = {name: file_digest(aside / name) for name in FILES}
    manifest = snapshot.manifest.model_copy(update={"files": files})
    (aside / MANIFEST).write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
    aside.rename(final)
    return final


def read_snapshot(path: Path) -> Snapshot:
    """The snapshot in its own folder `path`. Raises SnapshotDamaged where a file is not as written."""
    manifest = read_manifest(path)
    for name in FILES:
        if not (path / name).is_file() or file_digest(path / name) != manifest.files.get(name):
            raise SnapshotDamaged(f"{path / name} is missing or was changed; {ADVICE}")
    return Snapshot(
        manifest=manifest,
        train=read_columns(SFTExample, path / TRAIN),
        validation=read_columns(SFTExample, path / VALIDATION),
        holdout=read_columns(ReviewedItem, path / HOLDOUT),
    )


def read_manifest(path: Path) -> Manifest:
    """The manifest of the snapshot in folder `path`. Raises SnapshotDamaged."""
    try:
        return Manifest.model_validate_json((path / MANIFEST).read_bytes())
    except (OSError, ValidationError) as error:
        raise SnapshotDamaged(f"{path / MANIFEST} cannot be read ({error}); {ADVICE}") from error


def write_parquet(examples: Sequence[SFTExample], path: Path) -> None:
    """Examples for other tools, one a row, with nested columns for messages."""
    write_columns(examples, SFTExample, path)


def write_jsonl(examples: Iterable[SFTExample], path: Path) -> None:
    """One example a line, with `prompt` and `completion` as lists of chat messages (what TRL reads)."""
    with path.open("w", encoding="utf-8") as file:
        for example in examples:
            line = example.model_dump(mode="json") | {
                "id": example.id,
                "prompt": [message.to_chat() for message in example.prompt],
                "completion": [example.completion.to_chat()],
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
