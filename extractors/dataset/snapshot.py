"""A frozen, content-addressed dataset: train, validation, holdout, retention as Parquet, with a manifest.

<folder>/<snapshot id>/train-sft.parquet  train-pairs.parquet  validation-sft.parquet  …
                       holdout.parquet  retention.parquet  manifest.json
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from extractors.cleaning.statistics import Statistics, describe
from extractors.dataset.build import DatasetContent, ExtraData, build_content
from extractors.dataset.holdout_split import HoldoutRules, Window
from extractors.errors import LearndError
from extractors.examples.types import (
    Examples,
    PreferencePair,
    Reviewed,
    ReviewedItem,
    ReviewedRetrieval,
    SFTExample,
    Trajectory,
    Triplet,
    UnpairedPreference,
)
from extractors.feedback.extract import Extraction
from extractors.file_formats.parquet import ColumnsDamaged, read_columns, write_columns
from extractors.values import Value, content_id, file_digest

MANIFEST = "manifest.json"
KINDS: dict[str, type[Value]] = {
    "sft": SFTExample,
    "pairs": PreferencePair,
    "votes": UnpairedPreference,
    "triplets": Triplet,
    "trajectories": Trajectory,
}
"""Fields of `Examples` and the types that they hold."""
HELD_OUT: dict[str, type[Value]] = {
    "holdout": ReviewedItem,
    "retrievals": ReviewedRetrieval,
    "retention": ReviewedItem,
    "retained_retrievals": ReviewedRetrieval,
}
"""Fields of `Snapshot` whose items are never trained on."""
ADVICE = "restore the folder from a back-up, or remove it: the next cycle builds a snapshot again"


class SnapshotDamaged(LearndError):
    """A snapshot's files are missing, or are not what its manifest says."""


class OutcomeCounts(Value):
    """Reviewed items counted by verdict."""

    approved: int
    corrected: int
    rejected: int
    """Without a correction: there is no gold."""


class Manifest(Value):
    """The contents of a snapshot and where they came from."""

    schema_version: Literal[2] = 2
    snapshot_id: str
    target: str
    """`tenant/agent`."""
    created_at: datetime
    filters: dict[str, Any]
    """Which spans and annotations counted, as the settings say it."""
    rules: HoldoutRules
    window: Window | None
    """The holdout's window; hand it to the next `build_snapshot`."""
    watermark: datetime | None
    """Start of the newest reviewed item."""
    train: dict[str, int]
    """Training examples by kind (`sft`, `pairs`, `votes`, `triplets`, `trajectories`)."""
    validation: dict[str, int]
    holdout: int
    retention: int = 0
    """Reviewed calls or searches of earlier holdouts that stay reserved."""
    reviewed: OutcomeCounts
    """All reviewed calls or searches that the snapshot was built from."""
    held_out: OutcomeCounts
    excluded_prompts: tuple[str, ...] = ()
    """Normalised prompts that are not held out, whoever asks them, since many sessions share them."""
    left_out: dict[str, int]
    """Things that stand on no side, by reason in words."""
    replaced: dict[str, int] = {}
    """Pieces of personal data that were replaced, by type."""
    statistics: Statistics | None = None
    """Lengths, languages, class balance of the training examples, and warnings."""
    files: dict[str, str] = {}
    """File name to SHA-256, once written."""


class Provenance(NamedTuple):
    """The traffic that a snapshot is made from."""

    target: str
    """`tenant/agent`."""
    filters: Mapping[str, Any]
    """Which spans and annotations counted, as the settings say it."""


class Snapshot(Value):
    """An immutable dataset."""

    manifest: Manifest
    train: Examples = Examples()
    validation: Examples = Examples()
    holdout: tuple[ReviewedItem, ...] = ()
    """Calls of the language model, to be answered again."""
    retrievals: tuple[ReviewedRetrieval, ...] = ()
    """Searches, to be made again."""
    retention: tuple[ReviewedItem, ...] = ()
    """Older calls with gold that were never trained on: they show what a candidate has forgotten."""
    retained_retrievals: tuple[ReviewedRetrieval, ...] = ()

    @property
    def id(self) -> str:
        return self.manifest.snapshot_id


def build_snapshot(
    extraction: Extraction,
    rules: HoldoutRules,
    *,
    window: Window | None,
    now: datetime,
    provenance: Provenance,
    extra: ExtraData | None = None,
) -> Snapshot:
    """Build the dataset that `extraction` makes.

    The same content, rules, window, target and filters give the same id. `window` is that of the target's
    last snapshot, None at first. The holdout comes first: with few items everything is held out and `train`
    is empty, so look at the counts before training.
    """
    extra = extra or ExtraData()
    content = build_content(extraction, rules, window, extra)
    reviewed = extraction.retrievals or extraction.items
    held_out: tuple[Reviewed, ...] = (*content.holdout, *content.retrievals)
    manifest = Manifest(
        snapshot_id=_compute_id(content, rules, provenance),
        target=provenance.target,
        created_at=now,
        filters=dict(provenance.filters),
        rules=rules,
        window=content.window,
        watermark=max((item.started_at for item in reviewed), default=None),
        train=count_examples(content.train),
        validation=count_examples(content.validation),
        holdout=len(held_out),
        retention=len(content.retention) + len(content.retained_retrievals),
        reviewed=count_outcomes(reviewed),
        held_out=count_outcomes(held_out),
        excluded_prompts=content.excluded_prompts,
        left_out=content.left_out,
        replaced=extraction.replaced,
        statistics=_describe(content, rules, extra),
    )
    sides = {side: getattr(content, side) for side in ("train", "validation", *HELD_OUT)}
    return Snapshot(manifest=manifest, **sides)


def _compute_id(content: DatasetContent, rules: HoldoutRules, provenance: Provenance) -> str:
    stored = content.model_dump(mode="json", exclude={"left_out"})
    return content_id([provenance.target, dict(provenance.filters), rules.model_dump(mode="json"), stored])


def _describe(content: DatasetContent, rules: HoldoutRules, extra: ExtraData) -> Statistics:
    """Describe the training examples; warn where none could be set apart to validate on."""
    statistics = describe(content.train, output_space=extra.output_space, rules=extra.quality)
    trained = sum(count_examples(content.train).values())
    if round(rules.validation_share * trained) and not any(count_examples(content.validation).values()):
        warning = (
            f"of {trained} examples none could be set apart to validate on (too few sessions, or prompts "
            "that all of them share): training does not stop early"
        )
        return statistics.model_copy(update={"warnings": (*statistics.warnings, warning)})
    return statistics


def count_examples(examples: Examples) -> dict[str, int]:
    """Count the examples of each kind."""
    return {kind: len(getattr(examples, kind)) for kind in KINDS}


def count_outcomes(reviewed: Iterable[Reviewed]) -> OutcomeCounts:
    """Count how many of these were approved, corrected, rejected."""
    outcomes = [item.outcome for item in reviewed]
    return OutcomeCounts(
        approved=outcomes.count("approved"),
        corrected=outcomes.count("corrected"),
        rejected=outcomes.count("rejected"),
    )


def write_snapshot(snapshot: Snapshot, folder: Path) -> Path:
    """Write the snapshot below `folder` and return its own folder, named by its id.

    It is written aside and renamed, so it is there whole or not at all. An undamaged one that exists stays.
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
    files = {}
    for name, kind, records in _list_tables(snapshot):
        write_columns(records, kind, aside / name)
        files[name] = file_digest(aside / name)
    manifest = snapshot.manifest.model_copy(update={"files": files})
    (aside / MANIFEST).write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
    aside.rename(final)
    return final


def read_snapshot(path: Path) -> Snapshot:
    """Read the snapshot in its own folder `path`. Raises SnapshotDamaged where a file is not as written."""
    manifest = read_manifest(path)
    try:
        changed = [name for name, digest in manifest.files.items() if not _is_intact(path / name, digest)]
        if changed:
            raise SnapshotDamaged(f"{path / changed[0]} is missing or was changed; {ADVICE}")
        return _read_tables(path, manifest)
    except (ColumnsDamaged, OSError, ValueError) as problem:
        raise SnapshotDamaged(f"{path} cannot be read: {problem}; {ADVICE}") from problem


def _is_intact(file: Path, digest: str) -> bool:
    return file.is_file() and file_digest(file) == digest


def _read_tables(path: Path, manifest: Manifest) -> Snapshot:
    def read_table(name: str, kind: type[Value]) -> tuple[Value, ...]:
        return read_columns(kind, path / name) if name in manifest.files else ()

    def read_side(name: str) -> Examples:
        return Examples.model_validate(
            {field: read_table(f"{name}-{field}.parquet", kind) for field, kind in KINDS.items()}
        )

    held_out = {field: read_table(f"{field}.parquet", kind) for field, kind in HELD_OUT.items()}
    return Snapshot.model_validate(
        {"manifest": manifest, "train": read_side("train"), "validation": read_side("validation"), **held_out}
    )


def _list_tables(snapshot: Snapshot) -> Iterator[tuple[str, type[Value], Sequence[Value]]]:
    """Yield file name, type and records of each table that has any."""
    sides = {"train": snapshot.train, "validation": snapshot.validation}
    tables = [
        (f"{name}-{field}.parquet", kind, getattr(side, field))
        for name, side in sides.items()
        for field, kind in KINDS.items()
    ] + [(f"{field}.parquet", kind, getattr(snapshot, field)) for field, kind in HELD_OUT.items()]
    return (table for table in tables if table[2])


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of the snapshot in folder `path`. Raises SnapshotDamaged."""
    try:
        return Manifest.model_validate_json((path / MANIFEST).read_bytes())
    except (OSError, ValidationError) as error:
        raise SnapshotDamaged(f"{path / MANIFEST} cannot be read ({error}); {ADVICE}") from error
