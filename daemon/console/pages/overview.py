"""The first page, with how every target is and what its cycle does right now."""

from collections.abc import Mapping
from typing import Any

from fastapi import Request
from nicegui import ui

from daemon.console.base.charts import curve_chart, losses, redraw
from daemon.console.base.page_session import Console, Visit
from daemon.console.base.widgets import Tagged, ago, chip, heading, labelled, moment, retone, text
from daemon.console.frame import frame
from daemon.console.report.probation import Probation
from daemon.views.run_files import progress_of
from daemon.views.status import WORDS
from registry.cycles import ENDED

REFRESH_SECONDS = 1.0
CURVE_EVERY = 3
"""Refreshes between two readings of the losses."""
LIVELY = frozenset({"progress", "last_poll_at"})
"""What changes from second to second, and is shown apart."""


def overview_page(console: Console) -> None:
    """At `/`."""

    @ui.page("/")
    async def page(request: Request) -> None:
        visit = Visit.of(console, request)
        entries = await visit.read(console.entries.of)
        with frame(visit, "Overview"):
            phoenix = text("", "muted")
            with ui.element("div").classes("cards"):
                cards = {entry["target"]: TargetCard(visit, entry) for entry in entries}

        async def refresh() -> None:
            found = await visit.read(console.entries.of)
            phoenix.set_text(_phoenix(console, found))
            for entry in found:
                await cards[entry["target"]].show(entry)

        visit.every(REFRESH_SECONDS, refresh)


def _phoenix(console: Console, entries: list[dict[str, Any]]) -> str:
    url = console.settings.phoenix.seen_at
    if problem := next((entry["last_poll_error"] for entry in entries if entry["last_poll_error"]), None):
        return f"Phoenix at {url} cannot be read: {problem}"
    asked = max((entry["last_poll_at"] for entry in entries if entry["last_poll_at"]), default=None)
    if asked is None:
        return f"Phoenix at {url} has not been asked yet."
    return f"Phoenix at {url} answered {ago(asked, console.clock())}."


class TargetCard:
    """One target. Its parts stay and change, so that nobody loses their place when it is refreshed."""

    def __init__(self, visit: Visit, entry: Mapping[str, Any]) -> None:
        self._visit = visit
        self._key = entry["target"]
        self._shown: Mapping[str, Any] = {}
        self._refreshes = 0
        with labelled(ui.element("article"), self._key).classes("card"):
            with ui.element("div").classes("line"):
                heading(self._key)
                self._state = chip("")
                self._verdict = chip("")
                self._held = chip("on hold", "warn")
            self._cycle = ui.link("", "").classes("muted")
            self._reason = text("")
            self._running()
            with ui.element("div").classes("needs"):
                self._held_out = Need("reviewed calls to judge by, which come first")
                self._needs = {kind: Need(WORDS[kind]) for kind in entry["needs"]}
            self._probation = Probation()
            self._rest = ui.element("div").classes("needs")
            self._start = ui.button("Start a cycle", on_click=self._ask_for_cycle)
            self._start.props("no-caps outline color=primary").classes("start")
        self._show_state(entry)

    def _running(self) -> None:
        with ui.element("div").classes("running") as self._run:
            self._doing = text("")
            bar = ui.linear_progress(0, show_value=False).props("rounded size=10px")
            self._bar = labelled(bar, "Progress of the cycle")
            self._chart = curve_chart({}, f"Losses of the training of {self._key}", height="180px")
        self._run.set_visibility(False)
        self._chart.set_visibility(False)

    async def _ask_for_cycle(self) -> None:
        store, clock = self._visit.console.store, self._visit.console.clock

        def do(actor: str) -> bool:
            store.ask_for_cycle(self._key, actor=actor, now=clock())
            return True

        await self._visit.act(do, said=f"A cycle of {self._key} begins within seconds.")

    async def show(self, entry: Mapping[str, Any]) -> None:
        """Show how the target is now."""
        self._refreshes += 1
        self._show_state(entry)
        await self._show_running(entry)

    def _show_state(self, entry: Mapping[str, Any]) -> None:
        known = {name: value for name, value in entry.items() if name not in LIVELY}
        if known == self._shown:
            return
        self._shown = known
        state, verdict, cycle = entry["cycle_state"], entry["verdict"], entry["cycle"]
        retone(self._state, state or "no cycle yet")
        retone(self._verdict, verdict or "")
        self._verdict.set_visibility(bool(verdict))
        self._held.set_visibility(entry["held"])
        self._cycle.set_text(f"Cycle {cycle}")
        self._cycle.props["href"] = f"/experiments/{cycle}"
        self._cycle.set_visibility(bool(cycle))
        self._reason.set_text(entry["reason"] or ("" if cycle else _first_words(entry)))
        self._held_out.show(entry["held_out"])
        for kind, need in self._needs.items():
            need.show(entry["needs"][kind])
        self._probation.show(entry)
        self._rest.clear()
        with self._rest:
            _rest(entry)

    async def _show_running(self, entry: Mapping[str, Any]) -> None:
        running = bool(entry["cycle"]) and entry["cycle_state"] not in ENDED
        self._run.set_visibility(running)
        self._start.set_visibility(not running and self._visit.may_decide)
        if not running:
            return
        said = entry["progress"] or {}
        step, total, loss = said.get("step"), said.get("total"), said.get("loss")
        stage = str(said.get("stage") or entry["cycle_state"]).lower()
        words = f"{stage}: step {step} of {total}" if step is not None and total else stage
        words += f", loss {loss:.3f}" if isinstance(loss, float) else ""
        self._doing.set_text(words)
        self._bar.set_value(step / total if step is not None and total else 0)
        if self._refreshes % CURVE_EVERY == 1:
            console = self._visit.console

            def read() -> dict[str, list[tuple[float, float]]]:
                return losses(progress_of(console.settings, console.store.cycle(entry["cycle"])))

            curves = await self._visit.read(read)
            self._chart.set_visibility(bool(curves))
            redraw(self._chart, curves)


class Need:
    """A threshold, and how far the data has come."""

    def __init__(self, words: str) -> None:
        self._words = words
        with ui.element("div").classes("need"):
            self._said = text("")
            bar = ui.linear_progress(0, show_value=False).props("rounded size=8px")
            self._bar = labelled(bar, self._words)

    def show(self, need: Mapping[str, int]) -> None:
        """Show `has` against `needs`."""
        has, needs = need["has"], need["needs"]
        self._said.set_text(f"{has} of {needs} {self._words}")
        self._bar.set_value(min(has / needs, 1) if needs else 1)
        self._bar.props["color"] = "positive" if has >= needs else "primary"


def _first_words(entry: Mapping[str, Any]) -> str:
    new, needed = entry["new_feedback"], entry["needs_new_feedback"]
    return f"The first cycle begins after {needed} pieces of new feedback; there are {new}."


def _rest(entry: Mapping[str, Any]) -> None:
    for batch in entry["batches"]:
        decided = batch["approved"] + batch["rejected"]
        words = f"{batch['pending']} synthetic examples wait for you ({decided} decided): read them"
        ui.link(words, f"/approvals/{batch['id']}").classes("todo")
    with ui.element("dl").classes("facts"):
        _fact("Serves", entry["active_version"] or "the base model")
        _fact("New feedback", f"{entry['new_feedback']} of {entry['needs_new_feedback']} for the next cycle")
        if entry["next_scheduled"]:
            _fact("Next run", moment(entry["next_scheduled"]))
        for name, problem in entry["replicas"].items():
            _fact(f"Replica {name}", problem, bad=problem != "ok")
        for job, problem in entry["problems"].items():
            _fact(f"The job {job}", problem, bad=True)
        if entry["held"]:
            _fact("On hold", entry["held_reason"] or "since a rollback")


def _fact(name: str, words: str, *, bad: bool = False) -> None:
    Tagged("dt", name)
    Tagged("dd", words).classes("bad" if bad else "")
