"""The race between ways to train: how far every contender came, and their curves side by side."""

from collections.abc import Mapping

from nicegui import ui

from daemon.console.base.charts import Curve, describe_loss_gap, redraw_curve_chart, show_curve_chart
from daemon.console.base.widgets import TextTag, show_facts, show_heading, show_section, show_table, show_text
from daemon.views.report_text import build_race
from evaluation.race_report import RaceReport

ContenderCurves = Mapping[str, Mapping[str, Curve]]
"""The loss curves of each contender, by its name."""


class RaceSection:
    """Shows a race, or what there is of one without a report: it is under way, or its cycle has `ended`."""

    def __init__(self, race: RaceReport | None, curves: ContenderCurves, *, ended: bool) -> None:
        self._charts: dict[str, ui.echart] = {}
        self._gaps: dict[str, TextTag] = {}
        with show_section("Race between ways to train"):
            if race is None:
                show_text("It did not come to its end." if ended else "It is under way.", "muted")
            else:
                _show_outcome(race)
            with ui.element("div").classes("cards"):
                for name, losses in curves.items():
                    self._show_losses(name, losses)

    def _show_losses(self, contender: str, losses: Mapping[str, Curve]) -> None:
        with ui.element("div").classes("stack"):
            show_heading(contender, 3)
            label = f"Losses of {contender} by step"
            self._charts[contender] = show_curve_chart(losses, label, height="200px")
            self._gaps[contender] = show_text(describe_loss_gap(losses), "muted")

    def redraw(self, curves: ContenderCurves) -> None:
        """Replace the curves, which must be of the same contenders."""
        for name, losses in curves.items():
            redraw_curve_chart(self._charts[name], losses)
            self._gaps[name].set_text(describe_loss_gap(losses))


def _show_outcome(race: RaceReport) -> None:
    found = build_race(race)
    for words in found.words:
        show_text(words)
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    show_table("Contenders", rows, found.columns, numbers=found.columns[1:-1], headed=True)
    scores = {
        each.name: [(float(score.step), score.mean) for score in each.scores]
        for each in race.contenders
        if each.entered
    }
    show_curve_chart(scores, f"Scores of each contender by step ({race.metric})", unit=race.metric)
    show_heading("Why each was tried", 3)
    show_facts({each.name: each.reason.removeprefix(f"{each.name}: ") for each in race.contenders})
    show_text("Losses of different methods have different units, and rank nobody.", "muted")
