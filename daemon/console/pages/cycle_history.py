"""The history of cycles, filtered, and several of them compared."""

from collections.abc import Sequence
from typing import Any, get_args
from urllib.parse import quote

from fastapi import Request
from nicegui import ui

from daemon.console.base.charts import accuracies, bar_chart, curve_chart, losses
from daemon.console.base.page_session import MOUNTED, Console, Visit, here
from daemon.console.base.widgets import (
    TONES,
    Link,
    columns_of,
    label_choices,
    moment,
    nothing,
    section,
    shown,
    table,
    text,
)
from daemon.console.frame import frame
from daemon.console.report.measures import MEASURES, changed, measured
from daemon.console.report.verdict import CONDITIONS
from daemon.views.cycle_list import CycleView, newest, view
from daemon.views.experiments import Fact, Group, compare
from daemon.views.report_text import between, chance
from daemon.views.run_files import progress_of
from evaluation.report import Verdict
from registry.cycles import Cycle, CycleState
from registry.store.cycles import UnknownCycle
from trainers.planning.hyperparameters import Method

ANY = "any"
MOST_COMPARED = 6
GROUPS: dict[Group, str] = {"measures": "Measures", "plan": "Plan", "data": "Data"}
MOST = 500
"""Cycles in the list."""
COLUMNS = {
    "id": "Cycle",
    "target": "Target",
    "outcome": "Outcome",
    "method": "Method",
    "change": "Change",
    "reason": "Why",
}


def experiments_pages(console: Console) -> None:
    """At `/experiments` and `/compare`."""

    @ui.page("/experiments")
    def history(request: Request) -> None:
        visit = Visit.of(console, request)
        with frame(visit, "Experiments", wide=True):
            ui.timer(0, History(visit, dict(request.query_params)).read, once=True)

    @ui.page("/compare")
    def compared(request: Request, ids: str = "") -> None:
        visit = Visit.of(console, request)
        wanted = [each for each in ids.split(",") if each][:MOST_COMPARED]
        with frame(visit, "Compare", inside="Experiments", wide=True):
            body = ui.element("div").classes("stack")

        async def read() -> None:
            with body:
                try:
                    cycles = await visit.read(lambda: [console.store.cycle(each) for each in wanted])
                except UnknownCycle as unknown:
                    nothing(str(unknown), "Choose cycles in the list of experiments.")
                    return
                if len(cycles) < 2:
                    nothing("There is nothing to compare.", "Choose cycles in the list of experiments.")
                    return
                await _compared(visit, cycles)

        ui.timer(0, read, once=True)


class History:
    """The list, its filters, and the choice of what to compare."""

    def __init__(self, visit: Visit, asked: dict[str, str]) -> None:
        self._visit = visit
        self._readings = 0
        targets = [target.key for target in visit.console.settings.targets]
        with ui.element("div").classes("filters"):
            self._target = _choice("Target", targets, asked.get("target"))
            self._method = _choice("Method", get_args(Method), asked.get("method"))
            self._verdict = _choice("Verdict", get_args(Verdict), asked.get("verdict"))
            self._compare = ui.button("Compare", on_click=self._open_comparison)
            self._compare.props("no-caps outline color=primary").disable()
        for choice in (self._target, self._method, self._verdict):
            choice.on_value_change(self.read)
        self._table = ui.table(
            rows=[],
            columns=columns_of(COLUMNS),
            row_key="id",
            selection="multiple",
            pagination=25,
            on_select=self._chosen,
        )
        self._table.classes("wide-table").props("flat bordered wrap-cells")
        label_choices(self._table)
        self._table.add_slot(
            "body-cell-id",
            '<q-td :props="props"><a :href="props.row.page">{{ props.value }}</a>'
            '<div class="muted">{{ props.row.started }}</div></q-td>',
        )
        self._table.add_slot(
            "body-cell-outcome",
            '<q-td :props="props"><span v-for="word in props.value" :class="props.row.tones[word]">{{ word }}'
            '</span><div class="muted">{{ props.row.guards }}</div></q-td>',
        )
        for column, below in (("method", "look"), ("change", "items")):
            self._table.add_slot(
                f"body-cell-{column}",
                f'<q-td :props="props">{{{{ props.value }}}}'
                f'<div class="muted">{{{{ props.row.{below} }}}}</div></q-td>',
            )
        self._most = text(f"The newest {MOST}; a filter finds older ones.", "muted")
        self._most.set_visibility(False)
        self._empty = ui.element("div")
        with self._empty:
            nothing(
                "No cycle fits.",
                "A target's first cycle begins by itself once there is enough new feedback; "
                "the overview has a button to start one now.",
            )

    async def read(self) -> None:
        """Read the list by the filters."""
        target, method, verdict = (
            None if choice.value == ANY else choice.value
            for choice in (self._target, self._method, self._verdict)
        )
        store = self._visit.console.store
        self._readings += 1
        reading = self._readings
        found = await self._visit.read(
            lambda: newest(store, target=target, method=method, verdict=verdict, limit=MOST)
        )
        if reading != self._readings:
            return  # Something else was asked for meanwhile.
        self._table.rows = [_row(view(cycle), cycle) for cycle in found]
        self._table.selected = []
        self._table.update()
        self._chosen()
        self._most.set_visibility(len(found) == MOST)
        self._table.set_visibility(bool(found))
        self._empty.set_visibility(not found)
        here("/experiments", target=target, method=method, verdict=verdict)

    def _chosen(self) -> None:
        chosen = len(self._table.selected)
        self._compare.set_enabled(2 <= chosen <= MOST_COMPARED)
        self._compare.set_text(f"Compare {chosen}" if chosen > 1 else "Compare")

    def _open_comparison(self) -> None:
        ids = ",".join(row["id"] for row in self._table.selected)
        ui.navigate.to(f"/compare?ids={quote(ids, safe=',')}")


def _choice(label: str, options: Sequence[str], chosen: str | None) -> ui.select:
    select = ui.select([ANY, *options], value=chosen if chosen in options else ANY, label=label)
    return select.props("outlined dense options-dense").classes("filter")


def _row(shown: CycleView, cycle: Cycle) -> dict[str, Any]:
    over = cycle.state is CycleState.DONE and cycle.verdict is not None
    outcome = [word for word in (None if over else cycle.state, cycle.verdict) if word]
    items = _items(cycle)
    return {
        "id": cycle.id,
        "page": f"{MOUNTED}/experiments/{quote(cycle.id, safe='')}",
        "target": cycle.target,
        "outcome": outcome,
        "tones": {word: f"chip {TONES[word]}" for word in outcome},
        "guards": _guards(cycle) or "",
        "method": shown.method or "–",
        "look": "second look" if _look(cycle) == "second" else "",
        "change": _change(cycle),
        "items": f"on {items}" if items else "",
        "started": moment(cycle.started_at),
        "reason": cycle.reason,
    }


def _change(cycle: Cycle) -> str:
    """What the candidate gains over what was live."""
    found = cycle.outcome
    if found is None:
        return "–"
    return f"{changed(found.metric, found.effect)} (p = {chance(found.p_value)})"


def _items(cycle: Cycle) -> str | None:
    """Those that decide, and as how many independent ones they count."""
    found = cycle.outcome
    if found is None:
        return None
    worth = round(found.effective_n)
    return f"{found.n} items" if worth == found.n else f"{found.n} items, worth {worth}"


async def _compared(visit: Visit, cycles: Sequence[Cycle]) -> None:
    settings, store = visit.console.settings, visit.console.store
    progress = await visit.read(lambda: {cycle.id: progress_of(settings, cycle) for cycle in cycles})
    compared = await visit.read(lambda: compare(store, settings.phoenix, cycles))
    for note in compared.notes:
        text(note, "lead")
    with section("Verdicts"):
        bars = accuracies(cycles)
        if bars:
            bar_chart(bars, "Accuracy of each candidate on held-out traffic, in percent")
        else:
            nothing("None of them was evaluated.")
        heads = {cycle.id: Link(cycle.id, f"/experiments/{cycle.id}") for cycle in cycles}
        rows = [{"": name} | {cycle.id: fact(cycle) for cycle in cycles} for name, fact in FACTS]
        table("The verdicts side by side", [{"": "Cycle"} | heads, *rows], ("", *heads), headed=True)
    for group, title in GROUPS.items():
        facts = [fact for fact in compared.facts if fact.group == group]
        if facts:
            with section(title):
                table(f"{title} side by side", map(_fact_row, facts), ("", *heads), headed=True)
    with section("Validation losses", "In each method's own unit: only one method's can be compared."):
        curves = {
            f"{cycle_id}, {name}": curve
            for cycle_id, lines in progress.items()
            for name, curve in losses(lines).items()
            if name.startswith("validation")
        }
        if curves:
            curve_chart(curves, "Validation losses by step")
        else:
            text("None of them validated anything.", "muted")


def _fact_row(fact: Fact) -> dict[str, Any]:
    """What is best says so."""
    name = MEASURES[fact.name].words if fact.name in MEASURES else fact.name.replace("_", " ")
    return {"": name} | {
        run: f"{_in_words(fact.name, value)}{' (best)' if run in fact.best else ''}"
        for run, value in fact.values.items()
    }


def _in_words(name: str, value: Any) -> str:
    if name in MEASURES:
        return measured(name, value)
    return between(value) if name == "95% interval" else shown(value)


def _look(cycle: Cycle) -> str | None:
    return ("first" if cycle.plan else "second") if cycle.version_id else None


def _guards(cycle: Cycle) -> str | None:
    """What is broken or open."""
    guards = cycle.outcome.guards if cycle.outcome else {}
    return ", ".join(f"{name} {state}" for name, state in guards.items()) or None


def _golden(cycle: Cycle) -> str | None:
    golden = cycle.report.golden if cycle.report else None
    return f"{len(golden.broken)} of {golden.cases}" if golden else None


FACTS = (
    ("Verdict", lambda cycle: cycle.verdict),
    ("State", lambda cycle: str(cycle.state)),
    ("Look", _look),
    ("Decided by", lambda cycle: CONDITIONS[cycle.report.condition] if cycle.report else None),
    ("Guards broken or open", _guards),
    ("Golden cases broken", _golden),
    ("Why", lambda cycle: cycle.reason),
)
