"""A classification label by label: how often each is right, and how reliable the confidences are."""

from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import ui

from daemon.console.base.charts import show_reliability_chart
from daemon.console.base.widgets import format_percent, show_section, show_table
from daemon.console.report.confusion_matrix import show_confusion
from daemon.views.report_text import format_side
from evaluation.metrics.measures import LabelMeasures
from evaluation.report import Report, Side

MOST_ROWS = 12
"""Labels that are shown before more are asked for."""
FIGURES = ("items", "F1, live", "F1, candidate", "change")


def show_label_sections(report: Report) -> None:
    """Show live and candidate side by side, label by label; nothing for tasks without labels."""
    live, candidate = report.find_side(report.live), report.candidate
    if live.labels and candidate.labels:
        with show_section("Label by label", "Those that lost most come first."):
            _LabelTable(live.labels, candidate.labels)
        with show_section("Labels mistaken for others"):
            show_confusion(report, live.labels, candidate.labels)
    if live.confidence and candidate.confidence:
        with show_section(
            "Confidence and accuracy",
            "From the likelihoods of the labels. Above the dotted line a side is right more often than it is "
            "sure, below it less often.",
        ):
            _show_reliability(report, (live, candidate))


class _LabelTable:
    """Shows a row for each label, a few at first."""

    def __init__(self, live: LabelMeasures, candidate: LabelMeasures) -> None:
        self._rows = _build_label_rows(live, candidate)
        self._body = ui.element("div")
        self._show(self._rows[:MOST_ROWS])
        if len(self._rows) > MOST_ROWS:
            self._more = ui.button(f"Show all {len(self._rows)} labels", on_click=self._show_all)
            self._more.props("flat no-caps color=primary")

    def _show(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._body.clear()
        with self._body:
            show_table("Each label", rows, ("label", *FIGURES), numbers=FIGURES, headed=True)

    def _show_all(self) -> None:
        self._show(self._rows)
        self._more.delete()


def _build_label_rows(live: LabelMeasures, candidate: LabelMeasures) -> list[dict[str, Any]]:
    """Build a row for each label: the greatest losses first, frequent labels before rare ones."""
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


def _show_reliability(report: Report, sides: Sequence[Side]) -> None:
    bins = {format_side(report, side.name): side.confidence.reliability for side in sides if side.confidence}
    curves = {name: [(each.confidence, each.accuracy) for each in found] for name, found in bins.items()}
    show_reliability_chart(
        curves, "How often live and candidate are right, by how sure they are; numbers below"
    )
    rows = [
        {
            "side": name,
            "how sure": f"{each.low:.0%} to {each.high:.0%}",
            "items": each.n,
            "sure on average": format_percent(each.confidence),
            "right": format_percent(each.accuracy),
        }
        for name, found in bins.items()
        for each in found
    ]
    with ui.expansion("The numbers").classes("reason"):
        show_table("How sure and how right", rows, tuple(rows[0]), numbers=tuple(rows[0])[2:])
