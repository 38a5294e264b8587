"""The progress of a cycle in a terminal and in a log."""

import re
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
        log.show(build_line("left", message="beaten by sft+dpo (sigmoid)", contender="sft"))
        log.show(build_line("won", contender="sft+dpo (sigmoid)"))
    assert file.getvalue().splitlines() == [
        "training",
        "sft, training: 1 of 8, loss 2.000",
        "sft, answering: 48 validation items",
        "sft+dpo (sigmoid), training: 1 of ?, loss 0.700",
        "sft, left: beaten by sft+dpo (sigmoid)",
        "sft+dpo (sigmoid), won",
    ]


BAR = re.compile(r"(?P<spinner>.) (?P<name>.+?) +[━╸╺ ]{20} +(?P<count>[\d/?]*) +\d:\d\d:\d\d (?P<note>.*)")


class Terminal:
    """A terminal of 100 columns with progress bars."""

    def __init__(self) -> None:
        self.bars = ProgressBars(Console(file=StringIO(), force_terminal=True, width=100))

    def show(self, *lines: ProgressLine) -> dict[str, str]:
        """Return the text of each bar after these lines, by its name."""
        for line in lines:
            self.bars.show(line)
        console = Console(file=StringIO(), width=100)
        with console.capture() as captured:
            console.print(self.bars)
        rows: dict[str, str] = {}
        last = ""
        for text in captured.get().splitlines():
            found = BAR.match(text)
            if found is None:
                # The rest of a long note.
                rows[last] += f" {text.strip()}"
            else:
                last = found["name"]
                turns = found["spinner"].strip() and "turns:"
                rows[last] = " ".join(filter(None, (turns, found["count"], found["note"].strip())))
        return rows


def test_only_the_bar_of_what_is_being_done_turns() -> None:
    terminal = Terminal()
    with terminal.bars:
        shown = terminal.show(
            build_line("EXTRACTING"),
            build_line("training", step=3, total=8, loss=2.0, contender="sft [x]"),
            build_line("training", step=5, loss=1.0, contender="dpo"),
        )
    assert shown == {
        "extracting": "",
        "sft [x]": "3/8 training: loss 2.000",
        "dpo": "turns: 5/? training: loss 1.000",
    }


def test_a_contender_that_left_has_ended_with_its_reason_and_one_that_goes_on_turns_again() -> None:
    terminal, top = Terminal(), "sft+dpo (sigmoid)"
    behind = f"behind {top} at the first rung: accuracy 0.438 against 0.750"
    with terminal.bars:
        terminal.show(
            build_line("training", step=2, loss=0.7, contender=top),
            build_line("scored", message="accuracy 0.750 at the first rung", contender=top),
            build_line("training", step=3, loss=0.6, contender="kto"),
            build_line("scored", message="accuracy 0.438 at the first rung", contender="kto"),
        )
        shown = terminal.show(build_line("training", step=7, total=12, loss=0.5, contender=top))
        assert shown == {
            top: "turns: 7/12 training: loss 0.500",
            "kto": "3/? scored: accuracy 0.438 at the first rung",
        }
        shown = terminal.show(
            build_line("training", step=12, total=12, loss=0.4, contender=top),
            build_line("left", message=behind, contender="kto"),
            build_line("won", contender=top),
            build_line("left", message="did not enter", contender="dpo"),
        )
    assert shown == {
        top: "12/12 won",
        "kto": f"3/? left: {behind}",
        "dpo": "left: did not enter",
    }
