"""The history of cycles, filtered, and the choice of which to compare."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args
from urllib.parse import quote

from fastapi import Request
from nicegui import ui

from daemon.console.base.context import ConsoleContext
from daemon.console.base.page_session import CONSOLE_PATH, PageSession, set_address
from daemon.console.base.widgets import (
    TONES,
    build_columns,
    format_time,
    label_checkboxes,
    show_empty_state,
    show_text,
)
from daemon.console.frame import show_frame
from daemon.console.report.measures import format_change
from daemon.views.cycle_list import CycleView, build_view, list_newest
from daemon.views.report_text import format_p_value
from evaluation.report import Verdict
from registry.cycles import Cycle, CycleState
from trainers.planning.hyperparameters import Method

ANY = "any"
MOST_COMPARED = 6
MOST = 500
"""Cycles that are listed."""
COLUMNS = {
    "id": "Cycle",
    "target": "Target",
    "outcome": "Outcome",
    "method": "Method",
    "change": "Change",
    "reason": "Why",
}


def add_cycle_history_page(console: ConsoleContext) -> None:
    """Add the page `/experiments`."""

    @ui.page("/experiments")
    def history(request: Request) -> None:
        session = console.open_session(request)
        with show_frame(session, console.store, "Experiments", wide=True):
            ui.timer(0, CycleHistory(session, console, dict(request.query_params)).read, once=True)


class CycleHistory:
    """Shows the list of cycles, its filters, and the button that compares the selected ones."""

    def __init__(self, session: PageSession, console: ConsoleContext, asked: Mapping[str, str]) -> None:
        self._session = session
        self._store = console.store
        self._readings = 0
        targets = [target.key for target in console.settings.targets]
        with ui.element("div").classes("filters"):
            self._target = _show_choice("Target", targets, asked.get("target"))
            self._method = _show_choice("Method", get_args(Method), asked.get("method"))
            self._verdict = _show_choice("Verdict", get_args(Verdict), asked.get("verdict"))
            self._compare = ui.button("Compare", on_click=self._open_comparison)
            self._compare.props("no-caps outline color=primary").disable()
        for choice in (self._target, self._method, self._verdict):
            choice.on_value_change(self.read)
        self._table = self._show_list()
        self._most = show_text(f"The newest {MOST}; a filter finds older ones.", "muted")
        self._most.set_visibility(False)
        self._empty = ui.element("div")
        with self._empty:
            show_empty_state(
                "No cycle fits.",
                "A target's first cycle begins automatically once there is enough new feedback; "
                "the overview has a button to start one now.",
            )

    def _show_list(self) -> ui.table:
        table = ui.table(
            rows=[],
            columns=build_columns(COLUMNS),
            row_key="id",
            selection="multiple",
            pagination=25,
            on_select=self._update_compare_button,
        )
        table.classes("wide-table").props("flat bordered wrap-cells")
        label_checkboxes(table)
        table.add_slot(
            "body-cell-id",
            '<q-td :props="props"><a :href="props.row.page">{{ props.value }}</a>'
            '<div class="muted">{{ props.row.started }}</div></q-td>',
        )
        table.add_slot(
            "body-cell-outcome",
            '<q-td :props="props"><span v-for="word in props.value" :class="props.row.tones[word]">{{ word }}'
            '</span><div class="muted">{{ props.row.guards }}</div></q-td>',
        )
        for column, below in (("method", "look"), ("change", "items")):
            table.add_slot(
                f"body-cell-{column}",
                f'<q-td :props="props">{{{{ props.value }}}}'
                f'<div class="muted">{{{{ props.row.{below} }}}}</div></q-td>',
            )
        return table

    async def read(self) -> None:
        """Show the cycles that the filters let through."""
        target, method, verdict = (
            None if choice.value == ANY else choice.value
            for choice in (self._target, self._method, self._verdict)
        )
        self._readings += 1
        reading = self._readings
        found = await self._session.read(
            lambda: list_newest(self._store, target=target, method=method, verdict=verdict, limit=MOST)
        )
        if reading != self._readings:
            return  # The filters were changed meanwhile.
        self._table.rows = [_build_row(build_view(cycle), cycle) for cycle in found]
        self._table.selected = []
        self._table.update()
        self._update_compare_button()
        self._most.set_visibility(len(found) == MOST)
        self._table.set_visibility(bool(found))
        self._empty.set_visibility(not found)
        set_address("/experiments", target=target, method=method, verdict=verdict)

    def _update_compare_button(self) -> None:
        chosen = len(self._table.selected)
        self._compare.set_enabled(2 <= chosen <= MOST_COMPARED)
        self._compare.set_text(f"Compare {chosen}" if chosen > 1 else "Compare")

    def _open_comparison(self) -> None:
        ids = ",".join(row["id"] for row in self._table.selected)
        ui.navigate.to(f"/compare?ids={quote(ids, safe=',')}")


def _show_choice(label: str, options: Sequence[str], chosen: str | None) -> ui.select:
    select = ui.select([ANY, *options], value=chosen if chosen in options else ANY, label=label)
    return select.props("outlined dense options-dense").classes("filter")


def _build_row(shown: CycleView, cycle: Cycle) -> dict[str, Any]:
    over = cycle.state is CycleState.DONE and cycle.verdict is not None
    outcome = [word for word in (None if over else cycle.state, cycle.verdict) if word]
    items = _describe_items(cycle)
    return {
        "id": cycle.id,
        "page": f"{CONSOLE_PATH}/experiments/{quote(cycle.id, safe='')}",
        "target": cycle.target,
        "outcome": outcome,
        "tones": {word: f"chip {TONES[word]}" for word in outcome},
        "guards": describe_guards(cycle) or "",
        "method": shown.method or "–",
        "look": "second look" if find_look(cycle) == "second" else "",
        "change": _describe_change(cycle),
        "items": f"on {items}" if items else "",
        "started": format_time(cycle.started_at),
        "reason": cycle.reason,
    }


def _describe_change(cycle: Cycle) -> str:
    """Describe the candidate's gain over what was live."""
    found = cycle.outcome
    if found is None:
        return "–"
    return f"{format_change(found.metric, found.effect)} (p = {format_p_value(found.p_value)})"


def _describe_items(cycle: Cycle) -> str | None:
    """Describe the deciding items, and the number of independent ones that they are worth."""
    found = cycle.outcome
    if found is None:
        return None
    worth = round(found.effective_n)
    return f"{found.n} items" if worth == found.n else f"{found.n} items, worth {worth}"


def find_look(cycle: Cycle) -> str | None:
    """Return `first` or `second`; None for a cycle without a candidate."""
    return ("first" if cycle.plan else "second") if cycle.version_id else None


def describe_guards(cycle: Cycle) -> str | None:
    """Name the guards that are broken or open; None where there are none."""
    guards = cycle.outcome.guards if cycle.outcome else {}
    return ", ".join(f"{name} {state}" for name, state in guards.items()) or None
