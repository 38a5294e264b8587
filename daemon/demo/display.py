"""Display of the demo's progress: bars and spinners on a terminal, plain lines in a log."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from trainers.job_folder import ProgressLine

SECONDS_BETWEEN_LINES = 10.0
"""How often a count is printed where the output is no terminal."""


class CycleDisplay(Protocol):
    """Shows the progress of a cycle."""

    def show(self, line: ProgressLine) -> None: ...


ShowProgress = Callable[[Console], AbstractContextManager[CycleDisplay]]
"""Opens a display of a cycle on a console."""
Count = Callable[[int], None]
"""Shows how many of all are done."""


class Display:
    """The demo's part of the terminal, or of the log."""

    def __init__(self, show_progress: ShowProgress, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, markup=False, emoji=False)
        self._show_progress = show_progress

    def print(self, part: RenderableType) -> None:
        # A line that is longer than the terminal may hold a link, which must stay whole.
        self._console.print(part, soft_wrap=isinstance(part, str))

    @contextmanager
    def status(self, text: str) -> Iterator[None]:
        """Say what is being done until the block ends."""
        if not self._console.is_terminal:
            self.print(f"{text} …")
        with self._console.status(escape(text)):
            yield

    def cycle(self) -> AbstractContextManager[CycleDisplay]:
        """Show the progress of a cycle until the block ends."""
        return self._show_progress(self._console)

    @contextmanager
    def count(self, title: str, total: int) -> Iterator[Count]:
        """Show a count until the block ends."""
        if not self._console.is_terminal:
            yield self._count_in_lines(title, total)
            return
        columns = (TextColumn(escape(f"{title:<24}")), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task("", total=total)
            yield lambda done: progress.update(task, completed=done)

    def _count_in_lines(self, title: str, total: int) -> Count:
        printed_at = float("-inf")

        def show(done: int) -> None:
            nonlocal printed_at
            if done == total or time.monotonic() - printed_at >= SECONDS_BETWEEN_LINES:
                printed_at = time.monotonic()
                self.print(f"{title}: {done} of {total}")

        return show
