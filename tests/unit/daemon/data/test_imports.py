"""Imports are kept until an operator forgets them."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from daemon.data.imports import (
    UnknownImport,
    forget_import,
    import_file,
    list_imports,
    read_imported_examples,
)
from daemon.runtime.paths import imports_folder
from daemon.settings.target import TargetSettings

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TARGET = TargetSettings(tenant="acme", agent="routing", project="p", task="classification", base_model="none")


def import_examples(folder: Path, *lines: dict[str, Any], kind: str = "sft", days: int = 0) -> str:
    """Import a file with these lines, `days` after noon, and return the import's name."""
    file = folder / "file.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    now = NOON + timedelta(days=days)
    return import_file(imports_folder(folder, TARGET.key), file, kind, form=None, system=None, now=now).name


SHIPPING = {"prompt": "Where is it?", "completion": "shipping"}
VOTE = {**SHIPPING, "label": False}


def test_the_same_file_again_changes_nothing(tmp_path: Path) -> None:
    name = import_examples(tmp_path, SHIPPING)
    before = read_imported_examples(tmp_path, TARGET)
    assert import_examples(tmp_path, SHIPPING, days=1) == name
    assert read_imported_examples(tmp_path, TARGET) == before
    assert [(found.name, found.examples) for found in list_imports(tmp_path, TARGET)] == [(name, 1)]


def test_a_file_that_was_being_written_when_the_process_was_killed_is_none(tmp_path: Path) -> None:
    names = {import_examples(tmp_path, SHIPPING), import_examples(tmp_path, VOTE, kind="votes")}
    (folder,) = (tmp_path / "imports").iterdir()
    (folder / ".writing-sft-abc.parquet").write_bytes(b"half")
    assert {found.name for found in list_imports(tmp_path, TARGET)} == names
    found = read_imported_examples(tmp_path, TARGET)
    assert (len(found.sft), len(found.votes)) == (1, 1)


def test_what_is_forgotten_is_gone_and_no_other(tmp_path: Path) -> None:
    name, other = import_examples(tmp_path, SHIPPING), import_examples(tmp_path, VOTE, kind="votes")
    forget_import(tmp_path, TARGET, name)
    assert [found.name for found in list_imports(tmp_path, TARGET)] == [other]
    with pytest.raises(UnknownImport, match=f"no import '{name}' of acme/routing .*{other}"):
        forget_import(tmp_path, TARGET, name)
