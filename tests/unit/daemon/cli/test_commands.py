"""The table of the commands, and how they are found."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from daemon.cli import commands
from daemon.cli.lazy import LazyCommand
from daemon.runtime.version import VERSION

ROOT = Path(__file__).resolve().parents[4]


def run_learnd(*words: str, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "learnd", *words],
        cwd=ROOT,
        env={**os.environ, "TERM": "dumb", **env},
        capture_output=True,
        text=True,
        check=False,
    )


def build_root() -> Any:
    return typer.main.get_command(commands.app)


def iterate(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield every command below `command` that people see, with its name."""
    for name, each in getattr(command, "commands", {}).items():
        if not each.hidden:
            yield f"{path} {name}", each
            yield from iterate(each, f"{path} {name}")


def test_each_line_of_the_help_is_the_first_line_of_the_commands_own_help() -> None:
    listed = {name: command.help for name, command in build_root().commands.items()}
    loaded = build_root()
    loaded.load_all()
    assert {name: command.help.split("\n")[0] for name, command in loaded.commands.items()} == listed


def test_every_command_and_every_option_says_in_a_sentence_what_it_is() -> None:
    root = build_root()
    root.load_all()
    for path, command in iterate(root, "learnd"):
        assert command.help.split("\n")[0].endswith("."), path
        for parameter in command.params:
            assert parameter.help, f"{path}: {parameter.name}"
            assert parameter.help.endswith("."), f"{path}: {parameter.name}"


def test_a_command_is_loaded_when_it_runs_and_no_other_is() -> None:
    root = build_root()
    context = root.make_context("learnd", ["cycles", "--help"], resilient_parsing=True)
    name, command, rest = root.resolve_command(context, ["cycles", "list"])
    assert (name, rest) == ("cycles", ["list"])
    assert set(command.commands) == {"list", "start", "show"}
    assert all(isinstance(each, LazyCommand) for key, each in root.commands.items() if key != "version")


@pytest.mark.parametrize("words", [["version"], ["--version"]])
def test_the_version_is_printed(words: list[str]) -> None:
    done = CliRunner().invoke(commands.app, words)
    assert (done.exit_code, done.stdout) == (0, f"learnd {VERSION}\n")


def test_a_mistyped_command_is_answered_with_the_one_that_is_meant() -> None:
    for words, meant in ((["cylces"], "cycles"), (["adapters", "lst"], "list")):
        done = CliRunner().invoke(commands.app, words)
        assert done.exit_code == 2
        assert f"Did you mean '{meant}'" in done.output


def test_a_shell_completes_commands_and_what_is_below_them() -> None:
    def complete(line: str) -> list[str]:
        words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        script = "from daemon.cli.commands import app; app(prog_name='learnd')"
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={**os.environ, "_LEARND_COMPLETE": "complete_bash", **words},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split()

    assert complete("learnd cyc") == ["cycles"]
    assert complete("learnd cycles s") == ["start", "show"]


def test_an_error_is_a_line_that_says_what_to_do(tmp_path: Path) -> None:
    done = run_learnd("status", "-c", str(tmp_path / "none.toml"))
    assert done.returncode == 1
    assert done.stdout == ""
    told = "`learnd init` writes one, --config names another"
    assert done.stderr == f"learnd: no settings file at {tmp_path}/none.toml; {told}\n"


def test_a_command_whose_library_is_missing_names_it_and_what_to_install() -> None:
    script = "import sys; sys.modules['sqlalchemy'] = None; from daemon.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "status"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        "learnd: `learnd status` needs `sqlalchemy`, which is not installed; "
        "install it with: pip install 'learnd[daemon]'\n"
    )


def test_json_has_no_colours_where_a_program_reads_it(tmp_path: Path) -> None:
    config = tmp_path / "learnd.toml"
    config.write_text(
        "[[targets]]\ntenant = 'a'\nagent = 'b'\nproject = 'p'\ntask = 'chat'\nbase_model = 'm'\n"
    )
    said = run_learnd("status", "--json", "--config", str(config), FORCE_COLOR="1", TERM="xterm")
    assert json.loads(said.stdout)[0]["target"] == "a/b", said.stderr
