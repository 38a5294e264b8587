"""`learnd data`: examples to files and from them, as an operator does it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli_w

SETTINGS = {
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


@pytest.fixture
def learnd(tmp_path: Path) -> Any:
    (tmp_path / "learnd.toml").write_text(tomli_w.dumps(SETTINGS), "utf-8")

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

    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


def test_what_is_imported_is_trained_on_until_it_is_forgotten(learnd: Any, tmp_path: Path) -> None:
    lines = [{"instruction": f"where is parcel {n}?", "output": "shipping"} for n in range(3)]
    (tmp_path / "more.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
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
    (tmp_path / "bad.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps(bad)}\n", "utf-8")
    said = learnd("import", "bad.jsonl", "--format", "classification", check=False)
    assert "item 1" in said
    assert "label" in said
    assert learnd("imports") == []
