"""Labels that are mistaken for others: the confusion matrix, and the most frequent mistakes."""

from collections.abc import Sequence
from typing import Any

from nicegui import ui

from daemon.console.base.widgets import TextTag, show_heading, show_scrollable_table, show_table, show_text
from daemon.views.report_text import format_side
from evaluation.metrics.measures import LabelMeasures
from evaluation.report import Report

MOST_LABELS = 12
"""Above this many labels the whole matrix cannot be read, and is left out."""
MOST_MISTAKES = 12
"""Mistakes that are listed."""
OUTSIDE = "(outside the output space)"


def show_confusion(report: Report, live: LabelMeasures, candidate: LabelMeasures) -> None:
    """Show both sides' matrices where they can be read, and the most frequent mistakes."""
    sides = {format_side(report, report.live): live, format_side(report, report.candidate.name): candidate}
    labels = sorted({each.label for side in sides.values() for each in side.classes})
    if len(labels) <= MOST_LABELS:
        show_text("A row for each right label, a column for each answer; right answers are framed.", "muted")
        with ui.element("div").classes("cards"):
            for name, side in sides.items():
                with ui.element("div").classes("matrix"):
                    show_heading(name, 3)
                    _show_matrix(name, side, labels)
    mistakes = _build_mistake_rows(live, candidate)
    show_heading("Most frequent mistakes", 3)
    if not mistakes:
        show_text("Neither makes any.")
        return
    if len(mistakes) > MOST_MISTAKES:
        show_text(f"The candidate's {MOST_MISTAKES} most frequent of {len(mistakes)}.", "muted")
    show_table(
        "Most frequent mistakes", mistakes[:MOST_MISTAKES], tuple(mistakes[0]), numbers=("live", "candidate")
    )


def _build_mistake_rows(live: LabelMeasures, candidate: LabelMeasures) -> list[dict[str, Any]]:
    """Build a row for each mistake: the candidate's most frequent first, then those of what is live."""
    before, after = (_count_cells(side) for side in (live, candidate))
    wrong = {cell for cell in {*before, *after} if cell[0] != cell[1]}
    return [
        {
            "should be": gold,
            "was answered": answered,
            "live": before.get((gold, answered), 0),
            "candidate": after.get((gold, answered), 0),
        }
        for gold, answered in sorted(
            wrong, key=lambda cell: (-after.get(cell, 0), -before.get(cell, 0), cell)
        )
    ]


def _count_cells(side: LabelMeasures) -> dict[tuple[str, str], int]:
    return {
        (cell.gold, OUTSIDE if cell.answered is None else cell.answered): cell.n for cell in side.confusion
    }


def _show_matrix(name: str, side: LabelMeasures, labels: Sequence[str]) -> None:
    """Show the numbers on a background that is darker for a greater share of the row."""
    cells = _count_cells(side)
    columns = [*labels, *([OUTSIDE] if any(answered == OUTSIDE for _, answered in cells) else [])]
    with show_scrollable_table(f"Confusion matrix of {name}", "plain squared"):
        with ui.element("thead"), ui.element("tr"):
            TextTag("th", "should be").props("scope=col")
            for column in columns:
                TextTag("th", column).props("scope=col").classes("right")
        with ui.element("tbody"):
            for gold in labels:
                of_row = {answered: n for (label, answered), n in cells.items() if label == gold}
                with ui.element("tr"):
                    TextTag("th", gold).props("scope=row")
                    for column in columns:
                        _show_cell(of_row.get(column, 0), sum(of_row.values()), right=column == gold)


def _show_cell(n: int, row_sum: int, *, right: bool) -> None:
    cell = TextTag("td", str(n) if n else "·").classes("right shaded hit" if right else "right shaded")
    if n:
        cell.style(f"--share: {n / row_sum:.2f}")
