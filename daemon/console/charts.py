"""Curves of losses, and bars of accuracies.

Every chart's numbers also stand in a table or in words beside it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nicegui import ui

from daemon.console.parts import labelled
from registry.cycles import Cycle

INK = "#76808f"
"""Legible on light and on dark."""
COLORS = ("#2f7ed8", "#d9822b", "#2a9d6a", "#b3528a", "#7a6ff0", "#8c6d1f")
Curve = list[tuple[float, float]]


def losses(progress: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Curve]:
    """The curves of a cycle's trainings by name: steps, and losses in the method's own unit.

    `progress` are the jobs' progress lines by the job's name (`daemon.runs.progress_of`).
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
        "xAxis": {"type": "value", "min": 0, "max": 100, "axisLabel": {"color": INK}},
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


def accuracies(cycles: Iterable[Cycle]) -> dict[str, float]:
    """The candidates' accuracy by cycle, of those that were evaluated."""
    return {cycle.id: cycle.report.sides[-1].accuracy for cycle in cycles if cycle.report}


def _lines(curves: Mapping[str, Curve]) -> dict[str, Any]:
    return {
        **_common(),
        "tooltip": {"trigger": "axis", "renderMode": "richText"},
        "legend": {"top": 0, "textStyle": {"color": INK}, "type": "scroll"},
        "grid": {"left": 8, "right": 16, "top": 36, "bottom": 24, "containLabel": True},
        "xAxis": {"type": "value", "name": "step", "axisLabel": {"color": INK}, "minInterval": 1},
        "yAxis": {"type": "value", "name": "loss", "axisLabel": {"color": INK}, "scale": True},
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
