"""`learnd plan` and `learnd estimate` where several ways to train are possible."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from extractors.phoenix.mirror import MirrorChange, MirrorState
from registry.store.store import Store
from tests.support.replay import write_parts
from tests.support.runs import NOWHERE
from tests.support.traffic import NOON, annotation, correction, openinference, span
from trainers.models.base_model import compute_base_digest

WORDS = ("parcel", "kettle", "invoice", "ladder", "pillow", "garden", "copper", "window", "basket", "marble")
CALLS = 420


def build_traffic() -> MirrorChange:
    """Return reviewed calls, of a session each; every fourth one is corrected."""
    chance = random.Random(0)
    spans = [
        span(
            f"{number:016x}",
            minute=number,
            attributes=openinference(("user", f"{' '.join(chance.choices(WORDS, k=6))} {number}")),
        )
        for number in range(CALLS)
    ]
    said = [correction(each.span_id) for each in spans[::4]]
    said += [annotation(each.span_id) for number, each in enumerate(spans) if number % 4]
    return MirrorChange(state=MirrorState(), spans=tuple(spans), annotations=tuple(said))


def fill_folder(folder: Path, model: Path, **target: Any) -> None:
    """Write the settings of a target, and its traffic as if it had been polled."""
    known = {"tenant": "acme", "agent": "routing", "project": "p", "task": "generation"}
    settings = {
        "data_dir": "data",
        "phoenix": {"url": NOWHERE},
        "targets": [known | {"base_model": str(model)} | target],
    }
    (folder / "learnd.toml").write_text(tomli_w.dumps(settings), "utf-8")
    with Store.open(folder / "data", NOON) as store:
        store.apply_mirror("acme/routing", build_traffic(), NOON)
        store.record_poll("acme/routing", NOON, None)


def run_learnd(folder: Path, *words: str) -> str:
    """Run a command in the folder, and return what it prints, with single spaces."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[4]), "COLUMNS": "250"}
    done = subprocess.run(
        [sys.executable, "-m", "learnd", *words],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            "plan",
            (
                " default sft ",
                " challenger sft+dpo (sigmoid+sft) ",
                "to beat sft, which is taken unless one of them is better",
                "at most 1.85 times the time of sft alone",
            ),
        ),
        ("estimate", ("to train may race with it, which takes up to 1.85 times as long, ",)),
    ],
)
def test_who_may_race_and_at_what_cost_is_told_before(
    command: str, said: tuple[str, ...], tmp_path: Path, tiny_model: Path
) -> None:
    fill_folder(tmp_path, tiny_model)
    printed = run_learnd(tmp_path, command)
    for words in said:
        assert words in printed, words


def test_a_plan_without_a_race_says_why(tmp_path: Path, tiny_model: Path) -> None:
    fill_folder(tmp_path, tiny_model, race="off")
    printed = run_learnd(tmp_path, "plan")
    assert "None: `race` is off." in printed
    assert "challenger" not in printed


def test_a_plan_says_whether_the_base_model_has_to_write_first_what_is_mixed_in(
    tmp_path: Path, tiny_model: Path
) -> None:
    fill_folder(tmp_path, tiny_model)
    printed = run_learnd(tmp_path, "plan")
    assert (
        "examples by the base model itself, 10% of the target's own; it has to write them first." in printed
    )
    write_parts(tmp_path / "data" / "replay" / compute_base_digest(str(tiny_model)))
    replay = json.loads(run_learnd(tmp_path, "plan", "--json"))["replay"]
    assert replay.pop("examples") > 0
    assert replay == {"share": 0.1, "is_written": True, "why_not": ""}
