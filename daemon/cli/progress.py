"""The progress of a running cycle: bars on a terminal, plain lines in a log."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from daemon.cli.output import remove_control_characters
from trainers.job_folder import ProgressLine

SECONDS_BETWEEN_LINES = 10.0
"""A stage that has begun is reported no more often than this where the output is no terminal."""


def show_progress(console: Console) -> "AbstractContextManager[ProgressBars | ProgressLog]":
    """Return a display of progress lines that suits the console; use it in a `with` block."""
    return ProgressBars(console) if console.is_terminal else ProgressLog(console)


class ProgressBars:
    """A bar for each stage of a cycle, and in a race for each contender's, with the training's own counts."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, line: ProgressLine) -> None:
        """Show one progress line of a job, or the cycle's next stage."""
        stage = _name_stage(line)
        if stage not in self._tasks:
            self._end_bars_without_count()
            self._tasks[stage] = self._bars.add_task(escape(stage), total=None, note="")
        self._bars.update(
            self._tasks[stage], completed=line.step, total=line.total, note=escape(_build_note(line))
        )

    def _end_bars_without_count(self) -> None:
        """Fill the bars that had no total: the next stage has begun."""
        for task in self._bars.tasks:
            if task.total is None:
                self._bars.update(task.id, total=1, completed=1)


class ProgressLog:
    """A line when a stage begins, then one every few seconds, and one when the last step is done."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._stage, self._printed_at = "", 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, line: ProgressLine) -> None:
        """Print one progress line of a job, unless the stage was reported a moment ago."""
        stage, now = _name_stage(line), self._clock()
        is_last_step = line.step is not None and line.step == line.total
        if stage == self._stage and not is_last_step and now - self._printed_at < SECONDS_BETWEEN_LINES:
            return
        self._stage, self._printed_at = stage, now
        count = "" if line.step is None else f"{line.step} of {line.total or '?'}"
        words = ", ".join(filter(None, (count, _build_note(line))))
        self._console.print(f"{stage}: {words}" if words else stage, markup=False, highlight=False)


def _name_stage(line: ProgressLine) -> str:
    """Return the stage for people; in a race it begins with the contender's name."""
    stage = line.stage.lower()
    return f"{remove_control_characters(line.contender)}, {stage}" if line.contender else stage


def _build_note(line: ProgressLine) -> str:
    return remove_control_characters(line.message) if line.loss is None else f"loss {line.loss:.3f}"
