"""Tests of a snapshot's manifest and of the files that keep it."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from extractors.dataset.holdout_split import Window
from extractors.dataset.snapshot import Provenance, SnapshotDamaged, read_snapshot, write_snapshot
from extractors.examples.types import Examples, Message, ReviewedItem, ToolCall
from tests.support.traffic import NOON, item, rejected_item
from tests.unit.extractors.dataset.small_snapshots import build_small


def test_with_few_items_everything_is_held_out_and_the_manifest_says_so() -> None:
    made = build_small([item(n) for n in range(3)])
    assert (made.train, made.validation, made.manifest.holdout) == (Examples(), Examples(), 3)
    nothing = build_small([]).manifest
    assert (nothing.holdout, nothing.window, nothing.watermark) == (0, None, None)


def test_the_manifest_counts_what_it_was_built_from() -> None:
    made = build_small([item(0), rejected_item(1), *(item(n) for n in range(2, 20))]).manifest
    assert made.reviewed.model_dump() == {"approved": 19, "corrected": 0, "rejected": 1}
    assert made.train["sft"] + made.validation["sft"] == 15
    assert made.watermark == NOON + timedelta(minutes=19)
    opened = Window(start=NOON + timedelta(minutes=16), end=NOON + timedelta(minutes=19), retained_to=0)
    assert made.window == opened


def rich_items() -> list[ReviewedItem]:
    """Items with every column in use: tools, tool calls, nulls, emoji."""
    calling = Message(role="assistant", tool_calls=(ToolCall(id="c1", name="f", arguments='{"a": 1}'),))
    prompt = (
        Message(role="system", content=""),
        Message(role="user", content="Où est mon colis ? 📦\n\0"),
        calling,
        Message(role="tool", content="{}", tool_call_id="c1", name="f"),
    )
    tools: tuple[dict[str, Any], ...] = (
        {"type": "function", "function": {"name": "f", "parameters": {"a": [None, 1.5]}}},
    )
    rich: dict[str, Any] = {
        "prompt": prompt,
        "tools": tools,
        "verdict_rank": 1,
        "verdict_at": NOON,
        "answered_by": "acme.v1",
        "gold": calling,
    }
    precise = NOON + timedelta(microseconds=123456)
    return [
        item(0, started_at=precise, prompt_key="rich", **rich),
        *(item(n) for n in range(1, 20)),
        rejected_item(20, session_id=None),
    ]  # fmt: skip


def test_a_snapshot_reads_back_as_it_was_written(tmp_path: Path) -> None:
    made = build_small(rich_items())
    folder = write_snapshot(made, tmp_path / "snapshots")
    assert folder == tmp_path / "snapshots" / made.id
    found = read_snapshot(folder)
    assert (found.train, found.validation, found.holdout) == (made.train, made.validation, made.holdout)
    assert sorted(found.manifest.files) == [
        "holdout.parquet",
        "train-sft.parquet",
        "validation-sft.parquet",
    ]
    assert found.manifest.model_copy(update={"files": {}}) == made.manifest
    assert [entry.name for entry in folder.parent.iterdir()] == [made.id]


def test_an_empty_snapshot_reads_back_too(tmp_path: Path) -> None:
    made = build_small([])
    assert read_snapshot(write_snapshot(made, tmp_path)).train == Examples()


def test_equal_content_has_equal_id_and_files(tmp_path: Path) -> None:
    once = write_snapshot(build_small(rich_items()), tmp_path / "one")
    later = build_small(rich_items()[::-1], now=NOON + timedelta(days=1))
    again = write_snapshot(later, tmp_path / "two")
    assert once.name == again.name
    assert read_snapshot(once).manifest.files == read_snapshot(again).manifest.files
    assert build_small(rich_items(), provenance=Provenance("acme/routing", {})).id != once.name
    assert build_small(rich_items(), provenance=Provenance("acme/other", {"kind": "LLM"})).id != once.name


def test_writing_twice_keeps_the_first_and_heals_a_damaged_or_interrupted_one(tmp_path: Path) -> None:
    made = build_small(rich_items())
    (tmp_path / f".writing-{made.id}").mkdir()
    folder = write_snapshot(made, tmp_path)
    manifest = (folder / "manifest.json").read_bytes()
    assert write_snapshot(build_small(rich_items(), now=NOON + timedelta(days=1)), tmp_path) == folder
    assert (folder / "manifest.json").read_bytes() == manifest
    (folder / "train-sft.parquet").write_bytes(b"half")
    write_snapshot(made, tmp_path)
    assert read_snapshot(folder).train == made.train


@pytest.mark.parametrize("name", ["train-sft.parquet", "holdout.parquet", "manifest.json"])
def test_a_changed_or_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = write_snapshot(build_small(rich_items()), tmp_path)
    (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    with pytest.raises(SnapshotDamaged, match=name):
        read_snapshot(folder)
    (folder / name).unlink()
    with pytest.raises(SnapshotDamaged, match=name):
        read_snapshot(folder)
