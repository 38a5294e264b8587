"""Charts: loss curves, bars of accuracies, intervals of changes, and the reliability of confidences.

The numbers of every chart are also shown in a table or in words beside it.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nicegui import ui

from daemon.console.base.widgets import set_aria_label
from daemon.views.run_files import RACE
from registry.cycles import Cycle
from trainers.job_folder import ProgressLine

INK = "#76808f"
"""Legible on a light and on a dark page."""
COLORS = ("#2f7ed8", "#d9822b", "#2a9d6a", "#b3528a", "#7a6ff0", "#8c6d1f")
TRAINING_JOB = re.compile(r"train-(?P<stage>\d+)(-seed-(?P<run>\d+))?")
"""Names of the jobs that train a stage of the plan, the first time or with another seed."""
Curve = list[tuple[float, float]]
Interval = tuple[float, float, float]
"""Low end, measured, high end."""


def build_loss_curves(progress: Mapping[str, Sequence[ProgressLine]]) -> dict[str, Curve]:
    """Return the loss curves of a cycle's trainings by name: steps, and losses in the method's own unit.

    `progress` holds the jobs' progress lines by the job's name (`daemon.views.run_files.read_progress`).
    """
    trainings = {found: lines for name, lines in progress.items() if (found := TRAINING_JOB.fullmatch(name))}
    curves: dict[str, Curve] = {}
    for found, lines in trainings.items():
        stage = f", stage {int(found['stage']) + 1}" if len(trainings) > 1 else ""
        run = f", run {found['run']}" if found["run"] else ""
        curves |= {f"{name}{stage}{run}": curve for name, curve in _collect_losses(lines).items()}
    return curves


def build_contender_curves(progress: Mapping[str, Sequence[ProgressLine]]) -> dict[str, dict[str, Curve]]:
    """Return the loss curves of each contender of a cycle's race, by its name, in the order of the race."""
    lines_of: dict[str, list[ProgressLine]] = {}
    for line in progress.get(RACE, ()):
        if line.contender:
            lines_of.setdefault(line.contender, []).append(line)
    found = {name: _collect_losses(lines) for name, lines in lines_of.items()}
    return {name: curves for name, curves in found.items() if curves}


def _collect_losses(lines: Iterable[ProgressLine]) -> dict[str, Curve]:
    """Return the curves of one training."""
    curves: dict[str, dict[float, float]] = {"training": {}, "validation": {}}
    for line in lines:
        # A child that was killed reports some steps again: the last report counts.
        for name, loss in (("training", line.loss), ("validation", line.validation_loss)):
            if line.step is not None and loss is not None:
                curves[name][line.step] = loss
    return {name: sorted(points.items()) for name, points in curves.items() if points}


def show_curve_chart(
    curves: Mapping[str, Curve], label: str, *, height: str = "260px", unit: str = "loss"
) -> ui.echart:
    """Show lines over steps; `label` describes the chart to screen readers."""
    chart = ui.echart(_build_line_options(curves, unit), renderer="svg")
    return set_aria_label(chart.style(f"height: {height}; width: 100%").props("role=img"), label)


def redraw_curve_chart(chart: ui.echart, curves: Mapping[str, Curve]) -> None:
    """Replace the curves of a chart of losses."""
    chart.options.clear()
    chart.options.update(_build_line_options(curves, "loss"))
    chart.update()


def describe_loss_gap(curves: Mapping[str, Curve]) -> str:
    """Return the last losses in words, with the gap between training and validation.

    A wide gap means overfitting.
    """
    last = {name: curve[-1][1] for name, curve in curves.items() if curve}
    if not last:
        return ""
    losses = ", ".join(f"{name} {loss:.3f}" for name, loss in last.items())
    if "training" in last and "validation" in last:
        return f"Last losses: {losses}; gap {last['validation'] - last['training']:+.3f}."
    return f"Last losses: {losses}."


def show_bar_chart(bars: Mapping[str, float], label: str, *, unit: str = "%") -> ui.echart:
    """Show a bar for each name; `bars` are shares of 0 to 1, shown as percentages."""
    options = {
        **_build_common_options(),
        "grid": {"left": 8, "right": 48, "top": 8, "bottom": 8, "containLabel": True},
        "xAxis": {**_build_axis(), "min": 0, "max": 100},
        "yAxis": {
            "type": "category",
            "data": list(bars)[::-1],
            "axisLabel": {"color": INK, "width": 220, "overflow": "truncate"},
        },
        "series": [
            {
                "type": "bar",
                "data": [round(100 * share, 1) for share in list(bars.values())[::-1]],
                "itemStyle": {"color": COLORS[0]},
                "label": {"show": True, "position": "right", "formatter": f"{{c}} {unit}", "color": INK},
            }
        ],
    }
    chart = ui.echart(options, renderer="svg").style(f"height: {48 + 36 * len(bars)}px; width: 100%")
    return set_aria_label(chart.props("role=img"), label)


def show_interval_chart(intervals: Mapping[str, Interval], wanted: float, label: str) -> ui.echart:
    """Show changes with their intervals, in percent, and lines at no change and at the `wanted` change.

    `intervals` and `wanted` are changes of -1 to 1.
    """
    rows = list(intervals.items())[::-1]
    ends = [0.0, wanted, *(end for interval in intervals.values() for end in interval)]
    options = {
        **_build_common_options(),
        "grid": {"left": 8, "right": 24, "top": 28, "bottom": 8, "containLabel": True},
        "xAxis": {
            **_build_axis(),
            "min": 5 * math.floor(20 * min(ends) - 0.2),
            "max": 5 * math.ceil(20 * max(ends) + 0.2),
            "axisLabel": {"color": INK, "formatter": "{value} %"},
        },
        "yAxis": {
            "type": "category",
            "data": [name for name, _ in rows],
            "axisLabel": {"color": INK, "width": 120, "overflow": "break", "lineHeight": 14},
        },
        "series": [
            *(_build_whisker(row, interval) for row, (_, interval) in enumerate(rows)),
            {
                **_build_diamonds([interval for _, interval in rows]),
                "markLine": _build_threshold_lines(wanted),
            },
        ],
    }
    chart = ui.echart(options, renderer="svg").style(f"height: {64 + 56 * len(rows)}px; width: 100%")
    return set_aria_label(chart.props("role=img"), label)


def _build_whisker(row: int, interval: Interval) -> dict[str, Any]:
    low, _, high = interval
    return {
        "type": "line",
        "data": [[round(100 * low, 1), row], [round(100 * high, 1), row]],
        "symbol": "rect",
        "symbolSize": [2, 12],
        "color": COLORS[0],
        "lineStyle": {"width": 4},
    }


def _build_diamonds(intervals: Sequence[Interval]) -> dict[str, Any]:
    """Build a diamond with its number for each measured change."""
    return {
        "type": "scatter",
        "data": [
            {"value": [round(100 * change, 1), row], "label": {"formatter": f"{100 * change:+.1f} %"}}
            for row, (_, change, _) in enumerate(intervals)
        ],
        "symbol": "diamond",
        "symbolSize": 14,
        "color": COLORS[0],
        "label": {"show": True, "position": "top", "color": INK},
    }


def _build_threshold_lines(wanted: float) -> dict[str, Any]:
    no_change = {"xAxis": 0, "lineStyle": {"type": "solid"}, "label": {"show": False}}
    enough = {
        "xAxis": 100 * wanted,
        "lineStyle": {"type": "dashed"},
        "label": {"color": INK, "formatter": f"wanted: {wanted:+.0%}"},
    }
    return {
        "silent": True,
        "symbol": "none",
        "lineStyle": {"color": INK},
        "data": [no_change, enough] if wanted else [no_change],
    }


def show_reliability_chart(curves: Mapping[str, Curve], label: str) -> ui.echart:
    """Show the share of right answers over confidence, both 0 to 1, and the diagonal on which they agree."""
    symbols = ("circle", "diamond", "triangle")
    diagonal = {
        "type": "line",
        "data": [[0, 0], [100, 100]],
        "showSymbol": False,
        "color": INK,
        "lineStyle": {"type": "dotted", "width": 1},
    }
    curves_shown = [
        {
            "name": name,
            "type": "line",
            "data": [[round(100 * sure, 1), round(100 * right, 1)] for sure, right in curve],
            "symbol": symbols[number % len(symbols)],
            "symbolSize": 11,
            "color": COLORS[number % len(COLORS)],
            "lineStyle": {"width": 2, "type": "dashed" if number else "solid"},
        }
        for number, (name, curve) in enumerate(curves.items())
    ]
    share = {**_build_axis(), "min": 0, "max": 100, "nameLocation": "middle"}
    options = {
        **_build_common_options(),
        "legend": {"top": 0, "textStyle": {"color": INK}, "type": "scroll", "data": list(curves)},
        "grid": {"left": 32, "right": 16, "top": 36, "bottom": 28, "containLabel": True},
        "xAxis": {**share, "name": "how sure, %", "nameGap": 26},
        "yAxis": {**share, "name": "right, %", "nameGap": 34},
        "series": [diagonal, *curves_shown],
    }
    chart = ui.echart(options, renderer="svg").style("height: 320px; width: 100%; max-width: 560px")
    return set_aria_label(chart.props("role=img"), label)


def collect_accuracies(cycles: Iterable[Cycle]) -> dict[str, float]:
    """Return the candidate's accuracy by cycle, for the cycles that were evaluated."""
    return {cycle.id: cycle.report.sides[-1].accuracy for cycle in cycles if cycle.report}


def _build_line_options(curves: Mapping[str, Curve], unit: str) -> dict[str, Any]:
    return {
        **_build_common_options(),
        "tooltip": {"trigger": "axis", "renderMode": "richText"},
        "legend": {"top": 0, "textStyle": {"color": INK}, "type": "scroll"},
        "grid": {"left": 8, "right": 16, "top": 36, "bottom": 24, "containLabel": True},
        "xAxis": {**_build_axis(), "name": "step", "minInterval": 1},
        "yAxis": {**_build_axis(), "name": unit, "scale": True},
        "series": [
            {
                "name": name,
                "type": "line",
                "showSymbol": len(curve) < 40,
                "data": [list(point) for point in curve],
                "color": COLORS[number % len(COLORS)],
                "lineStyle": {"width": 2, "type": "dashed" if "validation" in name else "solid"},
            }
            for number, (name, curve) in enumerate(curves.items())
        ],
    }


def _build_common_options() -> dict[str, Any]:
    return {"animation": False, "textStyle": {"color": INK, "fontFamily": "inherit"}}


def _build_axis() -> dict[str, Any]:
    return {"type": "value", "axisLabel": {"color": INK}, "splitLine": {"lineStyle": {"color": f"{INK}40"}}}
