"""Commands that show a target's data before anything has polled: they poll once, or say why not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.demo.phoenix import PhoenixServer
from daemon.runtime.locks import daemon_lock
from tests.support.phoenix import annotate, chat_span, send_and_wait
from tests.support.runs import NOWHERE

SETTINGS = """\
data_dir = "data"
[phoenix]
url = "{url}"
[[targets]]
tenant = "acme"
agent = "routing"
project = "{project}"
task = "generation"
base_model = "{model}"
"""


def run_learnd(
    folder: Path, *command: str, url: str, project: str = "p", model: Path | str = "none"
) -> "subprocess.CompletedProcess[str]":
    (folder / "learnd.toml").write_text(SETTINGS.format(url=url, project=project, model=model))
    return subprocess.run(
        [sys.executable, "-m", "learnd", *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[4])},
        capture_output=True,
        text=True,
        check=False,
    )


def review_calls(phoenix: PhoenixServer, project: str) -> None:
    """Leave three approved calls, of a session each, in Phoenix."""
    for number in range(3):
        span = chat_span(f"Where is parcel {number}?", f"with courier {number}")
        send_and_wait(phoenix.url, project, span)
        annotate(phoenix.url, span.span_id)


def test_a_summary_before_the_first_poll_shows_what_phoenix_has(
    phoenix: PhoenixServer, project: str, tmp_path: Path
) -> None:
    review_calls(phoenix, project)
    first = run_learnd(tmp_path, "data", "summary", "--json", url=phoenix.url, project=project)
    assert (first.returncode, first.stderr) == (0, "")
    assert json.loads(first.stdout)["reviewed"]["approved"] == 3
    # From then on nobody has to wait for Phoenix.
    second = run_learnd(tmp_path, "data", "summary", "--json", url=NOWHERE, project=project)
    assert (second.returncode, second.stderr) == (0, "")
    assert second.stdout == first.stdout


def test_a_plan_before_the_first_poll_counts_what_phoenix_has(
    phoenix: PhoenixServer, project: str, tmp_path: Path, tiny_model: Path
) -> None:
    review_calls(phoenix, project)
    done = run_learnd(tmp_path, "plan", url=phoenix.url, project=project, model=tiny_model)
    assert done.returncode == 0, done.stderr
    assert "As of the last poll, 2" in done.stdout
    assert "has not happened" not in done.stdout


@pytest.mark.parametrize("command", [("data", "summary", "--json"), ("data", "export", "out.jsonl")])
def test_a_phoenix_that_is_away_is_said_before_the_zeros(tmp_path: Path, command: tuple[str, ...]) -> None:
    done = run_learnd(tmp_path, *command, url=NOWHERE)
    assert done.returncode == 0
    assert "Nothing of acme/routing was read from Phoenix yet" in done.stderr
    assert "does not answer" in done.stderr


def test_a_daemon_that_polls_is_left_to_it(tmp_path: Path) -> None:
    with daemon_lock(tmp_path / "data"):
        done = run_learnd(tmp_path, "data", "summary", "--json", url=NOWHERE)
    assert done.returncode == 0
    assert "the daemon's first poll has not ended yet" in done.stderr
