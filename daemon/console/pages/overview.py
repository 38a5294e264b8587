"""The first page: every target's status, and what its cycle is doing right now."""

from datetime import datetime

from fastapi import Request
from nicegui import ui

from daemon.console.base.charts import (
    Curve,
    build_contender_curves,
    build_loss_curves,
    redraw_curve_chart,
    show_curve_chart,
)
from daemon.console.base.context import ConsoleContext
from daemon.console.base.page_session import PageSession
from daemon.console.base.widgets import (
    TextTag,
    format_age,
    format_time,
    set_aria_label,
    show_chip,
    show_heading,
    show_text,
    update_chip,
)
from daemon.console.frame import show_frame
from daemon.console.report.probation import ProbationProgress
from daemon.views.run_files import read_progress
from daemon.views.status import WORDS, Need, RunningTargetStatus
from registry.cycles import ENDED

REFRESH_SECONDS = 1.0
CURVE_EVERY = 3
"""Refreshes between two readings of the losses."""
LIVELY = frozenset({"progress", "last_poll_at"})
"""Fields that change from second to second, and are shown apart."""


def add_overview_page(console: ConsoleContext) -> None:
    """Add the page `/`."""

    @ui.page("/")
    async def page(request: Request) -> None:
        session = console.open_session(request)
        url = console.settings.phoenix.public_url
        statuses = await session.read(console.statuses.get)
        with show_frame(session, console.store, "Overview"):
            phoenix = show_text("", "muted")
            with ui.element("div").classes("cards"):
                cards = {status.target: TargetCard(session, console, status) for status in statuses}

        async def refresh() -> None:
            found = await session.read(console.statuses.get)
            phoenix.set_text(_describe_phoenix(url, found, console.clock()))
            for status in found:
                await cards[status.target].show(status)

        session.refresh_every(REFRESH_SECONDS, refresh)


def _describe_phoenix(url: str, statuses: list[RunningTargetStatus], now: datetime) -> str:
    if problem := next((status.last_poll_error for status in statuses if status.last_poll_error), None):
        return f"Phoenix at {url} cannot be read: {problem}"
    asked = max((status.last_poll_at for status in statuses if status.last_poll_at), default=None)
    if asked is None:
        return f"Phoenix at {url} has not been asked yet."
    return f"Phoenix at {url} answered {format_age(asked, now)}."


class TargetCard:
    """Shows one target. Its elements are updated in place, so that a refresh moves nobody's focus."""

    def __init__(self, session: PageSession, console: ConsoleContext, status: RunningTargetStatus) -> None:
        self._session = session
        self._console = console
        self._key = status.target
        self._shown: RunningTargetStatus | None = None
        self._refreshes = 0
        with set_aria_label(ui.element("article"), self._key).classes("card"):
            with ui.element("div").classes("line"):
                show_heading(self._key)
                self._state = show_chip("")
                self._verdict = show_chip("")
                self._held = show_chip("on hold", "warn")
            self._cycle = ui.link("", "").classes("muted")
            self._reason = show_text("")
            self._add_progress()
            with ui.element("div").classes("needs"):
                self._held_out = ThresholdBar("reviewed calls to judge by, which come first")
                self._needs = {kind: ThresholdBar(WORDS[kind]) for kind in status.needs}
            self._probation = ProbationProgress()
            self._rest = ui.element("div").classes("needs")
            self._start = ui.button("Start a cycle", on_click=self._request_cycle)
            self._start.props("no-caps outline color=primary").classes("start")
        self._show_state(status)

    def _add_progress(self) -> None:
        with ui.element("div").classes("running") as self._run:
            self._doing = show_text("")
            bar = ui.linear_progress(0, show_value=False).props("rounded size=10px")
            self._bar = set_aria_label(bar, "Progress of the cycle")
            self._chart = show_curve_chart({}, f"Losses of the training of {self._key}", height="180px")
        self._run.set_visibility(False)
        self._chart.set_visibility(False)

    async def _request_cycle(self) -> None:
        def do(actor: str) -> bool:
            self._console.store.request_cycle(self._key, actor=actor, now=self._console.clock())
            return True

        await self._session.act(do, success=f"A cycle of {self._key} begins within seconds.")

    async def show(self, status: RunningTargetStatus) -> None:
        """Show the target's current status."""
        self._refreshes += 1
        self._show_state(status)
        await self._show_running(status)

    def _show_state(self, status: RunningTargetStatus) -> None:
        known = status.model_copy(update=dict.fromkeys(LIVELY))
        if known == self._shown:
            return
        self._shown = known
        state, verdict, cycle = status.cycle_state, status.verdict, status.cycle
        update_chip(self._state, state or "no cycle yet")
        update_chip(self._verdict, verdict or "")
        self._verdict.set_visibility(bool(verdict))
        self._held.set_visibility(status.held)
        self._cycle.set_text(f"Cycle {cycle}")
        self._cycle.props["href"] = f"/experiments/{cycle}"
        self._cycle.set_visibility(bool(cycle))
        self._reason.set_text(status.reason or ("" if cycle else _describe_first_cycle(status)))
        self._held_out.show(status.held_out)
        for kind, need in self._needs.items():
            need.show(status.needs[kind])
        self._probation.show(status)
        self._rest.clear()
        with self._rest:
            _show_rest(status)

    async def _show_running(self, status: RunningTargetStatus) -> None:
        running = bool(status.cycle) and status.cycle_state not in ENDED
        self._run.set_visibility(running)
        self._start.set_visibility(not running and self._session.may_decide)
        if not running:
            return
        line = status.progress
        step, total, loss = (line.step, line.total, line.loss) if line else (None, None, None)
        stage = (line.stage if line else str(status.cycle_state)).lower()
        contender = line.contender if line else ""
        stage = f"{contender}, {stage}" if contender else stage
        words = f"{stage}: step {step} of {total}" if step is not None and total else stage
        words += f", loss {loss:.3f}" if loss is not None else ""
        self._doing.set_text(words)
        self._bar.set_value(step / total if step is not None and total else 0)
        if self._refreshes % CURVE_EVERY == 1:
            curves = await self._session.read(lambda: self._read_curves(str(status.cycle), contender))
            self._chart.set_visibility(bool(curves))
            redraw_curve_chart(self._chart, curves)

    def _read_curves(self, cycle_id: str, contender: str) -> dict[str, Curve]:
        """Return the losses of the training under way: in a race, those of the contender alone."""
        console = self._console
        progress = read_progress(console.settings, console.store.cycle(cycle_id))
        if contender:
            return build_contender_curves(progress).get(contender, {})
        return build_loss_curves(progress)


class ThresholdBar:
    """Shows a threshold, and how far the data has come."""

    def __init__(self, label: str) -> None:
        self._label = label
        with ui.element("div").classes("need"):
            self._count = show_text("")
            bar = ui.linear_progress(0, show_value=False).props("rounded size=8px")
            self._bar = set_aria_label(bar, self._label)

    def show(self, need: Need) -> None:
        """Show what there is against what is needed."""
        has, needs = need.has, need.needs
        self._count.set_text(f"{has} of {needs} {self._label}")
        self._bar.set_value(min(has / needs, 1) if needs else 1)
        self._bar.props["color"] = "positive" if has >= needs else "primary"


def _describe_first_cycle(status: RunningTargetStatus) -> str:
    new, needed = status.new_feedback, status.needs_new_feedback
    return f"The first cycle begins after {needed} pieces of new feedback; there are {new}."


def _show_rest(status: RunningTargetStatus) -> None:
    for batch in status.batches:
        decided = batch.approved + batch.rejected
        words = f"{batch.pending} synthetic examples wait for you ({decided} decided): read them"
        ui.link(words, f"/approvals/{batch.id}").classes("todo")
    with ui.element("dl").classes("facts"):
        _show_fact("Serves", status.active_version or "the base model")
        _show_fact("New feedback", f"{status.new_feedback} of {status.needs_new_feedback} for the next cycle")
        if status.next_scheduled:
            _show_fact("Next run", format_time(status.next_scheduled))
        for name, problem in status.replicas.items():
            _show_fact(f"Replica {name}", problem, bad=problem != "ok")
        for job, problem in status.problems.items():
            _show_fact(f"The job {job}", problem, bad=True)
        if status.held:
            _show_fact("On hold", status.held_reason or "since a rollback")


def _show_fact(name: str, words: str, *, bad: bool = False) -> None:
    TextTag("dt", name)
    TextTag("dd", words).classes("bad" if bad else "")
