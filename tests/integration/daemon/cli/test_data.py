"""`learnd data`: examples to files and from them, as an operator does it."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from extractors.phoenix.mirror import MirrorChange, MirrorState
from registry.store.store import Store
from tests.support.traffic import annotation, span

SETTINGS: dict[str, Any] = {
    "data_dir": "data",
    "targets": [
        {
            "tenant": "acme",
            "agent": "routing",
            "project": "p",
            "task": "classification",
            "base_model": "none",
        }
    ],
}


def configure(folder: Path, **changes: Any) -> None:
    """Settings whose target has these changes."""
    (target,) = SETTINGS["targets"]
    (folder / "learnd.toml").write_text(
        tomli_w.dumps({**SETTINGS, "targets": [{**target, **changes}]}), "utf-8"
    )


def lines(path: Path, *items: dict[str, Any]) -> None:
    path.write_text("".join(json.dumps(item) + "\n" for item in items), "utf-8")


@pytest.fixture
def learnd(tmp_path: Path) -> Any:
    configure(tmp_path)

    def run(*arguments: str, check: bool = True) -> Any:
        command = [sys.executable, "-m", "learnd", "data", *arguments, "--json", "-c", "learnd.toml"]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=False, env=_with_checkout()
        )
        assert (done.returncode == 0) == check, done.stdout + done.stderr
        return json.loads(done.stdout) if check else done.stderr

    return run


def _with_checkout() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[4])}


def test_what_is_imported_is_trained_on_until_it_is_forgotten(learnd: Any, tmp_path: Path) -> None:
    asked = [{"instruction": f"where is parcel {n}?", "output": "shipping"} for n in range(3)]
    lines(tmp_path / "more.jsonl", *asked)
    made = learnd("import", "more.jsonl", "--format", "instruction", "--system", "Route.")
    assert made["examples"] == 3
    assert learnd("imports") == [made]
    assert learnd("summary")["train"]["sft"] == 3
    assert learnd("export", "out.jsonl")["examples"] == 3
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert [message["content"] for message in written[0]["prompt"]] == ["Route.", "where is parcel 0?"]
    learnd("forget", made["name"])
    assert learnd("summary")["train"]["sft"] == 0


def test_a_file_with_a_broken_item_is_refused_as_a_whole_and_the_item_named(
    learnd: Any, tmp_path: Path
) -> None:
    good, bad = {"text": "where is it?", "label": "shipping"}, {"text": "hello"}
    lines(tmp_path / "bad.jsonl", good, bad)
    said = learnd("import", "bad.jsonl", "--format", "classification", check=False)
    assert "item 1" in said
    assert "label" in said
    assert learnd("imports") == []


def test_personal_data_in_imports_and_golden_cases_is_replaced(learnd: Any, tmp_path: Path) -> None:
    asked = [
        {"prompt": f"My address is {name}@example.com, where is my {thing}?", "completion": "shipping"}
        for name, thing in (("ann", "green vacuum cleaner"), ("bob", "jigsaw puzzle of a lighthouse"))
    ]
    lines(tmp_path / "golden.jsonl", asked[0])
    lines(tmp_path / "more.jsonl", *asked)
    configure(tmp_path, golden="golden.jsonl", redaction={"redactor": "presidio"})
    learnd("import", "more.jsonl")
    summary = learnd("summary")
    assert (summary["train"]["sft"], summary["replaced"]) == (1, {"EMAIL_ADDRESS": 2})
    learnd("export", "out.jsonl")
    (written,) = (tmp_path / "out.jsonl").read_text("utf-8").splitlines()
    assert "My address is <EMAIL_ADDRESS>, where is my jigsaw" in json.loads(written)["prompt"][0]["content"]


def test_labels_that_no_rule_names_are_shown(learnd: Any, tmp_path: Path) -> None:
    spans = [span(f"s{n}", n) for n in range(3)]
    notes = [annotation(each.span_id, "thumbs_sideways") for each in spans]
    now = datetime(2026, 3, 2, tzinfo=UTC)
    with Store.open(tmp_path / "data", now) as store:
        change = MirrorChange(state=MirrorState(), spans=tuple(spans), annotations=tuple(notes))
        store.apply_mirror("acme/routing", change, now)
    assert learnd("summary")["unknown_labels"] == [
        {"name": "approval", "label": "thumbs_sideways", "annotations": 3}
    ]
    command = [sys.executable, "-m", "learnd", "data", "summary", "-c", "learnd.toml"]
    shown = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=True, env=_with_checkout()
    )
    assert "approval: 3 annotations have the label 'thumbs_sideways', which no rule names" in shown.stdout
