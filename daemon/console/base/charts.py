"""Curves of losses, bars of accuracies, intervals of what changed, and how rightly a model is sure of itself.

Every chart's numbers also stand in a table or in words beside it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nicegui import ui

from daemon.console.base.widgets import labelled
from registry.cycles import Cycle

INK = "#76808f"
"""Legible on light and on dark."""
COLORS = ("#2f7ed8", "#d9822b", "#2a9d6a", "#b3528a", "#7a6ff0", "#8c6d1f")
Curve = list[tuple[float, float]]
Interval = tuple[float, float, float]
"""Low end, measured, high end."""


def losses(progress: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Curve]:
    """The curves of a cycle's trainings by name: steps, and losses in the method's own unit.

    `progress` are the jobs' progress lines by the job's name (`daemon.views.run_files.progress_of`).
    """
    trainings = {name: lines for name, lines in progress.items() if name.startswith("train")}
    curves: dict[str, Curve] = {}
    for name, lines in trainings.items():
        stage = f", stage {int(name.rpartition('-')[2]) + 1}" if len(trainings) > 1 else ""
        for field, words in (("loss", "training"), ("validation_loss", "validation")):
            # A child that was killed says some steps again: what it said last counts.
            points = {line["step"]: line[field] for line in lines if "step" in line and field in line}
            if points:
                curves[words + stage] = sorted(points.items())
    return curves


def curve_chart(curves: Mapping[str, Curve], label: str, *, height: str = "260px") -> ui.echart:
    """Lines over steps; `label` says in words what is shown."""
    chart = ui.echart(_lines(curves), renderer="svg").style(f"height: {height}; width: 100%")
    return labelled(chart.props("role=img"), label)


def redraw(chart: ui.echart, curves: Mapping[str, Curve]) -> None:
    """Have a chart show other curves."""
    chart.options.clear()
    chart.options.update(_lines(curves))
    chart.update()


def gap(curves: Mapping[str, Curve]) -> str:
    """The last losses in words, and how far they lie apart: what was learned by heart, not understood."""
    last = {name: curve[-1][1] for name, curve in curves.items() if curve}
    if not last:
        return ""
    said = ", ".join(f"{name} {loss:.3f}" for name, loss in last.items())
    if "training" in last and "validation" in last:
        return f"Last losses: {said}; gap {last['validation'] - last['training']:+.3f}."
    return f"Last losses: {said}."


def bar_chart(bars: Mapping[str, float], label: str, *, unit: str = "%") -> ui.echart:
    """A bar each, shares of 0 to 1 as percentages."""
    options = {
        **_common(),
        "grid": {"left": 8, "right": 48, "top": 8, "bottom": 8, "containLabel": True},
        "xAxis": {**_axis(), "min": 0, "max": 100},
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
    return labelled(chart.props("role=img"), label)


def interval_chart(intervals: Mapping[str, Interval], wanted: float, label: str) -> ui.echart:
    """Changes with their intervals, -1 to 1, in percent; lines at no change and at the `wanted` one."""
    rows = list(intervals.items())[::-1]
    ends = [0.0, wanted, *(end for interval in intervals.values() for end in interval)]
    options = {
        **_common(),
        "grid": {"left": 8, "right": 24, "top": 28, "bottom": 8, "containLabel": True},
        "xAxis": {
            **_axis(),
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
            *(_whisker(row, interval) for row, (_, interval) in enumerate(rows)),
            {**_diamonds([interval for _, interval in rows]), "markLine": _thresholds(wanted)},
        ],
    }
    chart = ui.echart(options, renderer="svg").style(f"height: {64 + 56 * len(rows)}px; width: 100%")
    return labelled(chart.props("role=img"), label)


def _whisker(row: int, interval: Interval) -> dict[str, Any]:
    low, _, high = interval
    return {
        "type": "line",
        "data": [[round(100 * low, 1), row], [round(100 * high, 1), row]],
        "symbol": "rect",
        "symbolSize": [2, 12],
        "color": COLORS[0],
        "lineStyle": {"width": 4},
    }


def _diamonds(intervals: Sequence[Interval]) -> dict[str, Any]:
    """What was measured, with its number."""
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


def _thresholds(wanted: float) -> dict[str, Any]:
    nothing = {"xAxis": 0, "lineStyle": {"type": "solid"}, "label": {"show": False}}
    enough = {
        "xAxis": 100 * wanted,
        "lineStyle": {"type": "dashed"},
        "label": {"color": INK, "formatter": f"wanted: {wanted:+.0%}"},
    }
    return {
        "silent": True,
        "symbol": "none",
        "lineStyle": {"color": INK},
        "data": [nothing, enough] if wanted else [nothing],
    }


def reliability_chart(curves: Mapping[str, Curve], label: str) -> ui.echart:
    """Share that is right over confidence, both 0 to 1, beside the line on which they agree."""
    symbols = ("circle", "diamond", "triangle")
    agreeing = {
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
    share = {**_axis(), "min": 0, "max": 100, "nameLocation": "middle"}
    options = {
        **_common(),
        "legend": {"top": 0, "textStyle": {"color": INK}, "type": "scroll", "data": list(curves)},
        "grid": {"left": 32, "right": 16, "top": 36, "bottom": 28, "containLabel": True},
        "xAxis": {**share, "name": "how sure, %", "nameGap": 26},
        "yAxis": {**share, "name": "right, %", "nameGap": 34},
        "series": [agreeing, *curves_shown],
    }
    chart = ui.echart(options, renderer="svg").style("height: 320px; width: 100%; max-width: 560px")
    return labelled(chart.props("role=img"), label)


def accuracies(cycles: Iterable[Cycle]) -> dict[str, float]:
    """The candidates' accuracy by cycle, of those that were evaluated."""
    return {cycle.id: cycle.report.sides[-1].accuracy for cycle in cycles if cycle.report}


def _lines(curves: Mapping[str, Curve]) -> dict[str, Any]:
    return {
        **_common(),
        "tooltip": {"trigger": "axis", "renderMode": "richText"},
        "legend": {"top": 0, "textStyle": {"color": INK}, "type": "scroll"},
        "grid": {"left": 8, "right": 16, "top": 36, "bottom": 24, "containLabel": True},
        "xAxis": {**_axis(), "name": "step", "minInterval": 1},
        "yAxis": {**_axis(), "name": "loss", "scale": True},
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


def _common() -> dict[str, Any]:
    return {"animation": False, "textStyle": {"color": INK, "fontFamily": "inherit"}}


def _axis() -> dict[str, Any]:
    return {"type": "value", "axisLabel": {"color": INK}, "splitLine": {"lineStyle": {"color": f"{INK}40"}}}
