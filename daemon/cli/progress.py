"""A running cycle on the terminal."""

from typing import Any, Self

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

from daemon.cli.output import plain


class CycleProgress:
    """A bar for each step of a cycle, with the training's own counts."""

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

    def show(self, line: dict[str, Any]) -> None:
        """Show one progress line of a job, or the cycle's next step."""
        stage = str(line.get("stage", "")).lower()
        if stage not in self._tasks:
            self._end_bars_without_count()
            self._tasks[stage] = self._bars.add_task(stage, total=None, note="")
        loss = line.get("loss")
        note = (
            f"loss {loss:.3f}" if isinstance(loss, float) else escape(plain(str(line.get("message") or "")))
        )
        self._bars.update(self._tasks[stage], completed=line.get("step"), total=line.get("total"), note=note)

    def _end_bars_without_count(self) -> None:
        """The next stage has begun: what only span round is done."""
        for task in self._bars.tasks:
            if task.total is None:
                self._bars.update(task.id, total=1, completed=1)
