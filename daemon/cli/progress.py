"""The progress of a running cycle: bars on a terminal, plain lines in a log."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Self

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress_bar import ProgressBar
from rich.table import Column
from rich.text import Text

from daemon.cli.output import remove_control_characters
from evaluation.race_report import ENDINGS
from trainers.job_folder import ProgressLine

SECONDS_BETWEEN_LINES = 10.0
"""A stage that has begun is reported no more often than this where the output is no terminal."""


def show_progress(console: Console) -> "AbstractContextManager[ProgressBars | ProgressLog]":
    """Return a display of progress lines that suits the console; use it in a `with` block."""
    return ProgressBars(console) if console.is_terminal else ProgressLog(console)


class ProgressBars:
    """A bar for each stage of a cycle, and in a race for each contender, with the training's own counts.

    A cycle does one thing after another, so only the bar of the newest line turns.
    """

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            _Spinner(),
            TextColumn("[bold]{task.description:<12}"),
            _Bar(bar_width=20),
            _Count(),
            TimeElapsedColumn(),
            # The reason why a contender left needs more than a line.
            TextColumn("{task.fields[note]}", style="dim", table_column=Column(ratio=1)),
            console=console,
            expand=True,
        )
        self._tasks: dict[str, Task] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_others(None)
        self._bars.stop()

    def __rich__(self) -> RenderableType:
        """Return all bars as they stand."""
        return self._bars.get_renderable()

    def show(self, line: ProgressLine) -> None:
        """Show one progress line of a job, or the cycle's next stage."""
        name = line.contender or line.stage.lower()
        if name not in self._tasks:
            shown = escape(remove_control_characters(name))
            added = self._bars.add_task(shown, total=None, note="", is_contender=bool(line.contender))
            self._tasks[name] = next(task for task in self._bars.tasks if task.id == added)
        task = self._tasks[name]
        self._stop_others(task)
        note = _build_note(line)
        if line.contender:
            note = f"{line.stage}: {note}" if note else line.stage
        self._bars.update(task.id, completed=line.step, total=line.total, note=escape(note))
        if line.stage in ENDINGS:
            self._bars.stop_task(task.id)
        else:
            task.stop_time = None

    def _stop_others(self, current: Task | None) -> None:
        for task in self._tasks.values():
            if task is not current and task.stop_time is None:
                self._bars.stop_task(task.id)


class _Spinner(SpinnerColumn):
    """Turns until its task is stopped."""

    def render(self, task: Task) -> RenderableType:
        return self.finished_text if task.stop_time is not None else self.spinner.render(task.get_time())


class _Bar(BarColumn):
    """Stands still once its task is stopped, also where nobody knew the steps."""

    def render(self, task: Task) -> ProgressBar:
        bar = super().render(task)
        if task.stop_time is not None and task.total is None:
            bar.total, bar.completed = 1, 0 if task.fields["is_contender"] else 1
        return bar


class _Count(MofNCompleteColumn):
    """Empty for a stage that counts no steps."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.completed or task.total else Text()


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
