"""Several cycles side by side: verdicts, measures, plans, data, and validation losses."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fastapi import Request
from nicegui import ui

from daemon.console.base.charts import (
    Curve,
    build_contender_curves,
    build_loss_curves,
    collect_accuracies,
    show_bar_chart,
    show_curve_chart,
)
from daemon.console.base.context import ConsoleContext
from daemon.console.base.page_session import PageSession
from daemon.console.base.widgets import (
    Link,
    format_value,
    show_empty_state,
    show_section,
    show_table,
    show_text,
)
from daemon.console.frame import show_frame
from daemon.console.pages.cycle_history import MOST_COMPARED, describe_guards, find_look
from daemon.console.report.measures import MEASURES, format_measure
from daemon.console.report.verdict import CONDITIONS
from daemon.settings.load import Settings
from daemon.views.experiments import ComparisonFact, Group, compare_experiments
from daemon.views.report_text import format_interval
from daemon.views.run_files import read_progress
from registry.cycles import Cycle
from registry.store.cycles import UnknownCycle
from registry.store.store import Store
from trainers.job_folder import ProgressLine

GROUPS: dict[Group, str] = {"measures": "Measures", "plan": "Plan", "data": "Data"}


def add_cycle_comparison_page(console: ConsoleContext) -> None:
    """Add the page `/compare`."""

    @ui.page("/compare")
    def page(request: Request, ids: str = "") -> None:
        session = console.open_session(request)
        chosen = [each for each in ids.split(",") if each][:MOST_COMPARED]
        with show_frame(session, console.store, "Compare", inside="Experiments", wide=True):
            body = ui.element("div").classes("stack")

        async def read() -> None:
            with body:
                try:
                    cycles = await session.read(lambda: [console.store.cycle(each) for each in chosen])
                except UnknownCycle as unknown:
                    show_empty_state(str(unknown), "Choose cycles in the list of experiments.")
                    return
                if len(cycles) < 2:
                    show_empty_state(
                        "There is nothing to compare.", "Choose cycles in the list of experiments."
                    )
                    return
                await _show_comparison(session, console.settings, console.store, cycles)

        ui.timer(0, read, once=True)


async def _show_comparison(
    session: PageSession, settings: Settings, store: Store, cycles: Sequence[Cycle]
) -> None:
    progress = await session.read(lambda: {cycle.id: read_progress(settings, cycle) for cycle in cycles})
    compared = await session.read(lambda: compare_experiments(store, settings.phoenix, cycles))
    for note in compared.notes:
        show_text(note, "lead")
    _show_verdicts(cycles)
    columns = ("", *(cycle.id for cycle in cycles))
    for group, title in GROUPS.items():
        facts = [fact for fact in compared.facts if fact.group == group]
        if facts:
            with show_section(title):
                show_table(f"{title} side by side", map(_build_fact_row, facts), columns, headed=True)
    curves = {
        f"{cycle_id}, {name}": curve
        for cycle_id, lines in progress.items()
        for name, curve in _list_curves(lines)
        if name.startswith("validation")
    }
    with show_section("Validation losses", "In each method's own unit: only one method's can be compared."):
        if curves:
            show_curve_chart(curves, "Validation losses by step")
        else:
            show_text("None of them validated anything.", "muted")


def _list_curves(progress: Mapping[str, Sequence[ProgressLine]]) -> Iterator[tuple[str, Curve]]:
    """Yield the curves of a cycle's trainings, those of contenders with the contender's name."""
    yield from build_loss_curves(progress).items()
    for contender, curves in build_contender_curves(progress).items():
        yield from ((f"{name}, {contender}", curve) for name, curve in curves.items())


def _show_verdicts(cycles: Sequence[Cycle]) -> None:
    with show_section("Verdicts"):
        if bars := collect_accuracies(cycles):
            show_bar_chart(bars, "Accuracy of each candidate on held-out traffic, in percent")
        else:
            show_empty_state("None of them was evaluated.")
        heads = {cycle.id: Link(cycle.id, f"/experiments/{cycle.id}") for cycle in cycles}
        rows = [{"": name} | {cycle.id: fact(cycle) for cycle in cycles} for name, fact in VERDICT_FACTS]
        show_table("The verdicts side by side", [{"": "Cycle"} | heads, *rows], ("", *heads), headed=True)


def _build_fact_row(fact: ComparisonFact) -> dict[str, Any]:
    """Build a table row, in which the best runs are marked."""
    name = MEASURES[fact.name].words if fact.name in MEASURES else fact.name.replace("_", " ")
    return {"": name} | {
        run: f"{_format_fact(fact.name, value)}{' (best)' if run in fact.best else ''}"
        for run, value in fact.values.items()
    }


def _format_fact(name: str, value: Any) -> str:
    if name in MEASURES:
        return format_measure(name, value)
    return format_interval(value) if name == "95% interval" else format_value(value)


def _describe_golden(cycle: Cycle) -> str | None:
    golden = cycle.report.golden if cycle.report else None
    return f"{len(golden.broken)} of {golden.cases}" if golden else None


VERDICT_FACTS = (
    ("Verdict", lambda cycle: cycle.verdict),
    ("State", lambda cycle: str(cycle.state)),
    ("Look", find_look),
    ("Decided by", lambda cycle: CONDITIONS[cycle.report.condition] if cycle.report else None),
    ("Guards broken or open", describe_guards),
    ("Golden cases broken", _describe_golden),
    ("Why", lambda cycle: cycle.reason),
)
