"""A classification label by label: how right each is, what is taken for what, and how rightly it is sure."""

from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import ui

from daemon.console.base.charts import reliability_chart
from daemon.console.base.widgets import Tagged, heading, labelled, percent, section, table, text
from daemon.views.report_text import titled
from evaluation.metrics.labels import LabelMeasures
from evaluation.report import Report, Side

MOST_ROWS = 12
"""Labels, or confusions, that are shown before more are asked for."""
MOST_SQUARED = 12
"""Labels of which the whole confusion matrix can be read."""
OUTSIDE = "(outside the output space)"
FIGURES = ("items", "F1, live", "F1, candidate", "change")


def labels_sections(report: Report) -> None:
    """Live and candidate beside each other; nothing where the task is another one."""
    live, candidate = report.side(report.live), report.candidate
    if live.labels and candidate.labels:
        with section("Label by label", "Those that lost most come first."):
            _Classes(live.labels, candidate.labels)
        with section("What is taken for what"):
            _confusion(report, live.labels, candidate.labels)
    if live.confidence and candidate.confidence:
        with section(
            "How sure it is, and how rightly",
            "From the likelihoods of the labels. Above the dotted line a side is right more often than it is "
            "sure, below it less often.",
        ):
            _reliability(report, (live, candidate))


class _Classes:
    """A row for each label, few at first."""

    def __init__(self, live: LabelMeasures, candidate: LabelMeasures) -> None:
        self._rows = _class_rows(live, candidate)
        self._body = ui.element("div")
        self._show(self._rows[:MOST_ROWS])
        if len(self._rows) > MOST_ROWS:
            self._more = ui.button(f"Show all {len(self._rows)} labels", on_click=self._show_all)
            self._more.props("flat no-caps color=primary")

    def _show(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._body.clear()
        with self._body:
            table("Each label", rows, ("label", *FIGURES), numbers=FIGURES, headed=True)

    def _show_all(self) -> None:
        self._show(self._rows)
        self._more.delete()


def _class_rows(live: LabelMeasures, candidate: LabelMeasures) -> list[dict[str, Any]]:
    """Losses first; of equal ones the frequent labels."""
    before, after = ({each.label: each for each in side.classes} for side in (live, candidate))
    every = {**before, **after}
    changes = {
        label: (after[label].f1 if label in after else 0.0) - (before[label].f1 if label in before else 0.0)
        for label in every
    }
    return [
        {
            "label": label,
            "items": every[label].support,
            "F1, live": f"{before[label].f1:.3f}" if label in before else None,
            "F1, candidate": f"{after[label].f1:.3f}" if label in after else None,
            "change": f"{changes[label]:+.3f}",
        }
        for label in sorted(every, key=lambda label: (changes[label], -every[label].support, label))
    ]


# ---- the confusion matrix


def _confusion(report: Report, live: LabelMeasures, candidate: LabelMeasures) -> None:
    sides = {titled(report, report.live): live, titled(report, report.candidate.name): candidate}
    labels = sorted({each.label for side in sides.values() for each in side.classes})
    if len(labels) <= MOST_SQUARED:
        text("A row for what is right, a column for what was answered; right answers are framed.", "muted")
        with ui.element("div").classes("cards"):
            for name, side in sides.items():
                with ui.element("div").classes("matrix"):
                    heading(name, 3)
                    _matrix(name, side, labels)
    wrong = _wrong(live, candidate)
    heading("Most frequent mistakes", 3)
    if not wrong:
        text("Neither makes any.")
        return
    if len(wrong) > MOST_ROWS:
        text(f"The candidate's {MOST_ROWS} most frequent of {len(wrong)}.", "muted")
    table("Most frequent mistakes", wrong[:MOST_ROWS], tuple(wrong[0]), numbers=("live", "candidate"))


def _wrong(live: LabelMeasures, candidate: LabelMeasures) -> list[dict[str, Any]]:
    """The candidate's most frequent mistakes first, then those of what is live."""
    before, after = (_cells(side) for side in (live, candidate))
    mistakes = {cell for cell in {*before, *after} if cell[0] != cell[1]}
    return [
        {
            "should be": gold,
            "was answered": answered,
            "live": before.get((gold, answered), 0),
            "candidate": after.get((gold, answered), 0),
        }
        for gold, answered in sorted(
            mistakes, key=lambda cell: (-after.get(cell, 0), -before.get(cell, 0), cell)
        )
    ]


def _cells(side: LabelMeasures) -> dict[tuple[str, str], int]:
    return {
        (cell.gold, OUTSIDE if cell.answered is None else cell.answered): cell.n for cell in side.confusion
    }


def _matrix(name: str, side: LabelMeasures, labels: Sequence[str]) -> None:
    """Numbers on a ground that is the darker, the greater their share of the row is."""
    cells = _cells(side)
    columns = [*labels, *([OUTSIDE] if any(answered == OUTSIDE for _, answered in cells) else [])]
    around = ui.element("div").classes("scroll").props("tabindex=0 role=region")
    with labelled(around, f"Confusion matrix of {name}"), ui.element("table").classes("plain squared"):
        Tagged("caption", f"Confusion matrix of {name}").classes("unseen")
        with ui.element("thead"), ui.element("tr"):
            Tagged("th", "should be").props("scope=col")
            for column in columns:
                Tagged("th", column).props("scope=col").classes("right")
        with ui.element("tbody"):
            for gold in labels:
                of_row = {answered: n for (label, answered), n in cells.items() if label == gold}
                with ui.element("tr"):
                    Tagged("th", gold).props("scope=row")
                    for column in columns:
                        _cell(of_row.get(column, 0), sum(of_row.values()), right=column == gold)


def _cell(n: int, of: int, *, right: bool) -> None:
    cell = Tagged("td", str(n) if n else "·").classes("right shaded hit" if right else "right shaded")
    if n:
        cell.style(f"--share: {n / of:.2f}")


# ---- how sure


def _reliability(report: Report, sides: Sequence[Side]) -> None:
    bins = {titled(report, side.name): side.confidence.reliability for side in sides if side.confidence}
    curves = {name: [(each.confidence, each.accuracy) for each in found] for name, found in bins.items()}
    reliability_chart(curves, "How often live and candidate are right, by how sure they are; numbers below")
    rows = [
        {
            "side": name,
            "how sure": f"{each.low:.0%} to {each.high:.0%}",
            "items": each.n,
            "sure on average": percent(each.confidence),
            "right": percent(each.accuracy),
        }
        for name, found in bins.items()
        for each in found
    ]
    with ui.expansion("The numbers").classes("reason"):
        table("How sure and how right", rows, tuple(rows[0]), numbers=tuple(rows[0])[2:])
