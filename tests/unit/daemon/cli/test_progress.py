"""Progress where the output is no terminal."""

from datetime import UTC, datetime
from io import StringIO
from typing import Any

from rich.console import Console

from daemon.cli.progress import ProgressBars, ProgressLog, show_progress
from trainers.job_folder import ProgressLine


def build_line(stage: str, **values: Any) -> ProgressLine:
    return ProgressLine(at=datetime(2026, 3, 10, tzinfo=UTC), stage=stage, **values)


def test_a_terminal_gets_bars_and_a_log_gets_lines() -> None:
    assert isinstance(show_progress(Console(file=StringIO(), force_terminal=True)), ProgressBars)
    assert isinstance(show_progress(Console(file=StringIO())), ProgressLog)


def test_a_log_gets_a_line_as_a_stage_begins_then_one_every_ten_seconds_and_one_for_the_last_step() -> None:
    file, now = StringIO(), [0.0]
    with ProgressLog(Console(file=file), clock=lambda: now[0]) as log:
        log.show(build_line("EXTRACTING"))
        for step in range(1, 31):
            now[0] += 1
            log.show(build_line("training", step=step, total=30, loss=1 / step))
        log.show(build_line("loading", message="base \x1b[2Jmodel [x]"))
    assert file.getvalue().splitlines() == [
        "extracting",
        "training: 1 of 30, loss 1.000",
        "training: 11 of 30, loss 0.091",
        "training: 21 of 30, loss 0.048",
        "training: 30 of 30, loss 0.033",
        "loading: base \ufffd[2Jmodel [x]",
    ]


def test_a_log_says_which_contender_of_a_race_trains() -> None:
    file = StringIO()
    with ProgressLog(Console(file=file), clock=lambda: 0.0) as log:
        log.show(build_line("TRAINING"))
        log.show(build_line("training", step=1, total=8, loss=2.0, contender="sft"))
        log.show(build_line("training", step=2, total=8, loss=1.5, contender="sft"))
        log.show(build_line("answering", message="48 validation items", contender="sft"))
        log.show(build_line("training", step=1, loss=0.7, contender="sft+dpo (sigmoid)"))
    assert file.getvalue().splitlines() == [
        "training",
        "sft, training: 1 of 8, loss 2.000",
        "sft, answering: 48 validation items",
        "sft+dpo (sigmoid), training: 1 of ?, loss 0.700",
    ]


def test_each_contender_of_a_race_has_a_bar_of_its_own() -> None:
    file = StringIO()
    with ProgressBars(Console(file=file, force_terminal=True, width=120)) as bars:
        bars.show(build_line("training", step=3, total=8, loss=2.0, contender="sft [x]"))
        bars.show(build_line("training", step=5, total=9, loss=1.0, contender="dpo"))
    last = file.getvalue()
    assert "sft [x], training" in last
    assert "3/8" in last
    assert "5/9" in last
