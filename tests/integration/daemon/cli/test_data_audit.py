"""`learnd data audit`, as an operator runs it, over a mirror of approved traffic and without a Phoenix."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from extractors.cleaning.oddities import Oddity
from registry.store.store import Store
from tests.support.audited_traffic import ANSWER, ODD, build_reviewed_traffic

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
CHECKOUT = Path(__file__).resolve().parents[4]
SETTINGS: dict[str, Any] = {
    "data_dir": "data",
    "phoenix": {"url": "http://127.0.0.1:9", "browser_url": "https://phoenix.example.com"},
    "targets": [
        {
            "tenant": "acme",
            "agent": "support",
            "project": "p",
            "task": "generation",
            "base_model": "none",
            "holdout": {"share": 0.01, "least": 1, "validation_share": 0.0},
        }
    ],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with settings, and a store that mirrors reviewed traffic."""
    made = tmp_path_factory.mktemp("audited")
    (made / "learnd.toml").write_text(tomli_w.dumps(SETTINGS), "utf-8")
    with Store.open(made / "data", NOW) as store:
        store.apply_mirror("acme/support", build_reviewed_traffic(), NOW)
    return made


def audit(folder: Path, *arguments: str, code: int = 0) -> str:
    """Return what the command prints on a terminal of 80 columns; where it fails, what it says of that."""
    done = subprocess.run(
        [sys.executable, "-m", "learnd", "data", "audit", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "COLUMNS": "80"},
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if not code else done.stderr


def test_odd_examples_are_counted_and_shown_before_the_others(folder: Path) -> None:
    found = json.loads(audit(folder, "--json", "-n", "6"))
    assert found["target"] == "acme/support"
    assert (found["odd"], found["distinct"], found["examined"]["sft"]) == (4, 44, 44)
    assert found["oddities"] == dict.fromkeys(
        (Oddity.SHORT, Oddity.PLACEHOLDER, Oddity.SERIALISED, Oddity.ECHO), 1
    )
    # Half of the samples are of the others.
    assert [len(sample["oddities"]) for sample in found["samples"]] == [1, 1, 1, 0, 0, 0]
    assert found == json.loads(audit(folder, "--json", "-n", "6"))


def test_an_example_stands_beside_what_its_span_says(folder: Path) -> None:
    (found,) = (
        sample
        for sample in json.loads(audit(folder, "--json", "-n", "8"))["samples"]
        if sample["oddities"] == [Oddity.ECHO]
    )
    asked, answered = ODD["echo"]
    assert (found["kinds"], found["verdict"], found["split"]) == (["sft", "votes"], "approved", "train")
    assert [message["content"] for message in found["example"]["prompt"]] == ["Help the customer.", asked]
    (span,) = found["recorded"]
    assert span["url"] == "https://phoenix.example.com/redirects/spans/echo"
    assert span["fields"][-1] == {
        "root": "llm.output_messages",
        "path": "0.message.content",
        "value": answered,
    }


def test_a_kind_alone_is_looked_at_and_an_unknown_one_is_refused(folder: Path) -> None:
    assert set(json.loads(audit(folder, "--json", "-k", "votes"))["examined"]) == {"votes"}
    assert "no such examples" in audit(folder, "-k", "pairs")
    assert "songs" in audit(folder, "-k", "songs", code=2)
    assert "acme/nobody" in audit(folder, "-t", "acme/nobody", code=1)


def test_a_terminal_shows_thoughts_apart_from_the_answer(folder: Path) -> None:
    said = " ".join(audit(folder, "-n", "100").split())
    assert "4 of 44 examples look odd" in said
    assert "completion, thoughts The tool says that it is at the depot, so I say that." in said
    assert f"completion {ANSWER} It is at the depot." in said
    assert 'assistant calls find_parcel({"name": "Lee"})' in said


def test_an_empty_target_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "learnd.toml").write_text(tomli_w.dumps(SETTINGS), "utf-8")
    assert "approve, correct or reject" in audit(tmp_path)
    assert json.loads(audit(tmp_path, "--json"))["samples"] == []
