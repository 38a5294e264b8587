"""Curves of trainings, which are not mixed: neither those of stages, nor of seeds, nor of contenders."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daemon.console.base.charts import build_contender_curves, build_loss_curves
from tests.support.runs import FROM_LIVE, ON_TOP, write_race_progress
from trainers.job_folder import ProgressLine

AT = datetime(2026, 3, 10, tzinfo=UTC)


def build_lines(*losses: float, **about: Any) -> list[ProgressLine]:
    return [
        ProgressLine(at=AT, stage="training", step=step, loss=loss, **about)
        for step, loss in enumerate(losses, start=1)
    ]


def test_stages_and_seeds_have_curves_of_their_own() -> None:
    jobs: dict[str, Sequence[ProgressLine]] = {
        "measure": build_lines(9),
        "train-0": build_lines(3, 2),
        "train-1": build_lines(0.7),
        "train-0-seed-1": build_lines(4, 1),
    }
    assert build_loss_curves(jobs) == {
        "training, stage 1": [(1, 3), (2, 2)],
        "training, stage 2": [(1, 0.7)],
        "training, stage 1, run 1": [(1, 4), (2, 1)],
    }
    assert build_loss_curves({"train-0": build_lines(3)}) == {"training": [(1, 3)]}


def test_a_contender_that_is_trained_in_turns_has_one_curve_and_nobody_elses_losses(tmp_path: Path) -> None:
    write_race_progress(tmp_path / "race", AT)
    lines = [
        ProgressLine.model_validate_json(line)
        for line in (tmp_path / "race" / "progress.jsonl").read_text().splitlines()
    ]
    # A child that was killed reports some steps again.
    again = build_lines(7, contender=FROM_LIVE)
    found = build_contender_curves({"race": [*lines, *again], "train-0": build_lines(1)})
    assert list(found) == ["sft", ON_TOP, FROM_LIVE]
    assert [step for step, _ in found[ON_TOP]["training"]] == list(range(1, 13))
    assert [step for step, _ in found[ON_TOP]["validation"]] == [2, 12]
    assert found[FROM_LIVE]["training"][0] == (1, 7)
    assert build_loss_curves({"race": lines}) == {}
