"""`learnd approvals`, as an operator runs it."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tomli_w

from daemon.cli import main, output
from registry.store.store import Store
from tests.integration.registry.store.batch_support import TARGET, a_batch
from tests.integration.registry.store.store_support import NOW

SETTINGS = {
    "data_dir": "data",
    "targets": [
        {
            "tenant": "acme",
            "agent": "routing",
            "project": "p",
            "task": "generation",
            "base_model": "none",
        }
    ],
}


class Ran(NamedTuple):
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


class Learnd:
    """The command in a folder with settings, run in this process: a new one takes seconds to begin."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.patch, self.capsys = folder, patch, capsys
        (folder / "learnd.toml").write_text(tomli_w.dumps(SETTINGS), "utf-8")
        patch.chdir(folder)
        patch.setattr(output.console, "width", 200)

    def run(self, *words: str, **env: str) -> Ran:
        self.capsys.readouterr()
        with self.patch.context() as patch:
            for name, value in {"LEARND_OPERATOR": "ann", **env}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["learnd", "approvals", *words])
            with pytest.raises(SystemExit) as ended:
                main()
        code = ended.value.code
        return Ran(code if isinstance(code, int) else 0, *self.capsys.readouterr())

    def __call__(self, *words: str, **env: str) -> Any:
        done = self.run(*words, "--json", **env)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def learnd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Learnd:
    return Learnd(tmp_path, monkeypatch, capsys)


def waiting(learnd: Learnd, *questions: str) -> str:
    """The id of a batch that waits now."""
    now = datetime.now(UTC)
    with Store.open(learnd.folder / "data", now) as store:
        return a_batch(store, *questions, now=now).id


def test_a_batch_is_found_read_and_decided(learnd: Learnd) -> None:
    assert "Nothing waits for you" in learnd.run("list").stdout
    batch = waiting(learnd, *(f"question {n}" for n in range(1, 8)))
    assert [found["id"] for found in learnd("list")] == [batch]
    assert batch in learnd.run("list").stdout
    shown = learnd("show", batch, "--limit", "2")
    assert [item["number"] for item in shown["items"]] == [1, 2]
    assert "show " + batch + " --after 2" in learnd.run("show", batch, "--limit", "2").stdout
    assert learnd("approve", batch, "1", "3-4")["batch"]["approved"] == 3
    assert learnd("reject", batch, "2", "--reason", "off topic")["decided"][0]["decided_by"] == "ann"
    assert learnd("undo", batch, "4", LEARND_OPERATOR="bob")["batch"]["pending"] == 4
    done = learnd("approve", batch, "--all", "--as", "bob")
    assert (done["batch"]["state"], done["batch"]["ended_by"]) == ("DECIDED", "bob")
    assert learnd("list") == []
    assert learnd("list", "--all")[0]["approved"] == 6


def test_one_item_is_shown_with_what_it_was_made_from_and_without_control_characters(learnd: Learnd) -> None:
    batch = waiting(learnd, "clear\x1b[2J the screen", "two")
    done = learnd.run("show", batch, "1")
    assert done.returncode == 0
    assert "clear\ufffd[2J the screen" in done.stdout
    assert "\x1b" not in done.stdout
    assert "Made from the approved example d1" in done.stdout


def test_an_item_is_edited_in_an_editor_or_from_a_file(learnd: Learnd, tmp_path: Path) -> None:
    batch = waiting(learnd, "one", "two", "three")
    editor = tmp_path / "editor.py"
    editor.write_text(
        "import sys, pathlib\nfile = pathlib.Path(sys.argv[1])\n"
        "file.write_text(file.read_text().replace('billing', 'the billing team'))\n"
    )
    by_hand = learnd("edit", batch, "1", EDITOR=f"{sys.executable} {editor}", VISUAL="")
    assert by_hand["decided"][0]["example"]["completion"][0]["content"] == "the billing team"
    (tmp_path / "changes.json").write_text('{"completion": "returns"}')
    assert learnd("edit", batch, "2", "--file", "changes.json")["decided"][0]["edited"]
    unchanged = learnd.run("edit", batch, "3", EDITOR="true", VISUAL="")
    assert unchanged.returncode == 1
    assert "nothing was decided" in unchanged.stderr


def test_a_batch_is_reviewed_in_another_tool(learnd: Learnd, tmp_path: Path) -> None:
    batch = waiting(learnd, "one", "two")
    assert learnd("export", batch, "out/review.jsonl")["items"] == 2
    path = tmp_path / "out" / "review.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    lines[0]["state"] = "APPROVED"
    lines[1]["state"] = "REJECTED"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    refused = learnd.run("import", batch, str(path))
    assert (refused.returncode, f"{path}: nothing was imported: line 2: " in refused.stderr) == (1, True)
    lines[1]["reason"] = "off topic"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    assert learnd("import", batch, str(path))["batch"]["state"] == "DECIDED"


def test_a_batch_is_closed_or_withdrawn(learnd: Learnd) -> None:
    first = waiting(learnd, "one", "two")
    learnd("approve", first, "1")
    assert learnd("close", first)["batch"]["state"] == "DECIDED"
    withdrawn = learnd("withdraw", waiting(learnd, "three"), "--reason", "the wrong model")["batch"]
    assert (withdrawn["state"], withdrawn["reason"]) == ("WITHDRAWN", "the wrong model")
    with Store.open(learnd.folder / "data", NOW) as store:
        assert len(store.find_approved_examples(TARGET).sft) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("approve", "BATCH"), "which items?"),
        (("approve", "BATCH", "1", "--all"), "which items?"),
        (("approve", "BATCH", "one"), "'one' names no items"),
        (("approve", "BATCH", "7"), "there is no item 7"),
        (("reject", "BATCH", "1"), "why?"),
        (("show", "b-nowhere"), "there is no batch b-nowhere"),
        (("approve", "BATCH", "1", "--as", "learnd"), "only a named person"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(learnd: Learnd, words: tuple[str, ...], said: str) -> None:
    batch = waiting(learnd, "one", "two")
    done = learnd.run(*(batch if word == "BATCH" else word for word in words))
    assert (done.returncode, said in done.stderr) == (1, True), done.stderr
    assert learnd("list")[0]["pending"] == 2
