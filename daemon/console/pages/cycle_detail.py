"""The page of one cycle: verdict, answers before and after, plan, data, loss curves, and files."""

from pathlib import Path
from typing import Any, NamedTuple

from fastapi import Request
from nicegui import ui

from daemon.console.base.charts import (
    Curve,
    build_contender_curves,
    build_loss_curves,
    describe_loss_gap,
    redraw_curve_chart,
    show_curve_chart,
)
from daemon.console.base.context import ConsoleContext
from daemon.console.base.page_session import PageSession
from daemon.console.base.widgets import (
    Link,
    format_time,
    show_chip,
    show_empty_state,
    show_facts,
    show_heading,
    show_section,
    show_table,
    show_text,
)
from daemon.console.frame import show_frame
from daemon.console.report.answers import AnswerList
from daemon.console.report.guards import show_guards
from daemon.console.report.labels import show_label_sections
from daemon.console.report.measures import show_measures
from daemon.console.report.race import ContenderCurves, RaceSection
from daemon.console.report.trust import TrustSection
from daemon.console.report.verdict import JudgedCycle, read_judged_cycle, show_verdict
from daemon.runtime.paths import run_folder
from daemon.runtime.units import format_duration, format_gigabytes
from daemon.settings.load import Settings
from daemon.views.plan_text import build_planned_race, describe_replay
from daemon.views.run_files import read_progress, read_race
from evaluation.race_report import RaceReport
from registry.cycles import Cycle, StageResult
from registry.store.cycles import UnknownCycle
from registry.store.store import Store
from registry.versions import Version

REFRESH_SECONDS = 3.0
HYPERPARAMETERS = ("learning_rate", "epochs", "batch_size", "lora_rank", "lora_alpha", "max_length")
"""Those of a stage that are shown."""


def add_cycle_page(console: ConsoleContext) -> None:
    """Add the page `/experiments/{cycle_id}`."""

    @ui.page("/experiments/{cycle_id}")
    async def page(request: Request, cycle_id: str) -> None:
        session = console.open_session(request)
        cycle = await session.read(lambda: _find_cycle(console.store, cycle_id))
        with show_frame(session, console.store, f"Cycle {cycle_id}", inside="Experiments", wide=True):
            if cycle is None:
                show_empty_state(f"There is no cycle {cycle_id}.", "The list of experiments has all cycles.")
                return
            CyclePage(session, console, cycle)


def _find_cycle(store: Store, cycle_id: str) -> Cycle | None:
    try:
        return store.cycle(cycle_id)
    except UnknownCycle:
        return None


class _Trainings(NamedTuple):
    """The trainings of a cycle, as far as they have come."""

    curves: dict[str, Curve]
    """Losses of the plan's stages, where they are trained without a race."""
    contenders: ContenderCurves
    race: RaceReport | None
    """None before the race has ended."""

    @property
    def shape(self) -> tuple[bool, tuple[str, ...], bool]:
        """Return the parts that there are: while they are the same, the page keeps its charts."""
        return bool(self.curves), tuple(self.contenders), self.race is not None


def _read_trainings(settings: Settings, cycle: Cycle) -> _Trainings:
    progress = read_progress(settings, cycle)
    return _Trainings(
        build_loss_curves(progress), build_contender_curves(progress), read_race(settings, cycle)
    )


class CyclePage:
    """Shows one cycle, and follows it while it runs."""

    def __init__(self, session: PageSession, console: ConsoleContext, cycle: Cycle) -> None:
        self._session = session
        self._console = console
        self._cycle = cycle
        self._trainings: _Trainings | None = None
        self._chart: ui.echart | None = None
        self._race: RaceSection | None = None
        self._body = ui.element("div").classes("stack")
        self._timer = session.refresh_every(REFRESH_SECONDS, self.read)

    async def read(self) -> None:
        """Show the whole page anew after a step of the cycle, and only the curves between two steps."""
        console, cycle_id = self._console, self._cycle.id
        cycle = await self._session.read(lambda: console.store.cycle(cycle_id))
        found = await self._session.read(lambda: _read_trainings(console.settings, cycle))
        shown = self._trainings
        if shown is None or cycle != self._cycle or found.shape != shown.shape:
            self._cycle = cycle
            await self._show(found)
        else:
            self._redraw(found, shown)
        self._trainings = found
        if cycle.ended:
            self._timer.deactivate()

    def _redraw(self, found: _Trainings, shown: _Trainings) -> None:
        """Replace the curves that have changed."""
        if self._chart and found.curves != shown.curves:
            redraw_curve_chart(self._chart, found.curves)
            self._gap.set_text(describe_loss_gap(found.curves))
        if self._race and found.contenders != shown.contenders:
            self._race.redraw(found.contenders)

    async def _show(self, trainings: _Trainings) -> None:
        console, cycle = self._console, self._cycle
        judged = await self._session.read(lambda: read_judged_cycle(console.store, console.statuses, cycle))
        version = await self._session.read(lambda: _find_version(console.store, cycle))
        self._body.clear()
        with self._body:
            _show_head(cycle)
            later = self._show_judgement(judged) if judged else ()
            _show_plan(cycle)
            if trainings.race or trainings.contenders:
                self._race = RaceSection(trainings.race, trainings.contenders, ended=cycle.ended)
            _show_data(cycle)
            self._show_training(trainings)
            _show_files(console.settings.data_dir, cycle, version)
        for section in later:
            await section.read()

    def _show_judgement(self, judged: JudgedCycle) -> tuple[AnswerList, TrustSection]:
        """Show what the evaluation found, and return the sections that are still to be filled."""
        show_verdict(judged, self._console.settings.phoenix)
        show_guards(judged.report)
        show_measures(judged.report)
        show_label_sections(judged.report)
        trust = TrustSection(self._session, judged)
        with show_section("Answers to held-out traffic"):
            answers = AnswerList(self._session, self._console.settings, self._cycle, judged.report)
        return answers, trust

    def _show_training(self, found: _Trainings) -> None:
        with show_section("Training"):
            if not found.curves and not self._cycle.training:
                show_empty_state(
                    "The race above has no winner." if found.contenders else "Nothing was trained."
                )
            if found.curves:
                self._chart = show_curve_chart(found.curves, "Losses of training and validation by step")
                self._gap = show_text(describe_loss_gap(found.curves), "muted")
            if self._cycle.training:
                rows = [_build_stage_row(stage) for stage in self._cycle.training]
                show_table("Trainings by stage", rows, tuple(rows[0]), numbers=("examples", "steps"))


def _show_head(cycle: Cycle) -> None:
    with ui.element("div").classes("line"):
        show_chip(cycle.state)
        if cycle.verdict:
            show_chip(cycle.verdict)
    if cycle.reason:
        show_text(cycle.reason[0].upper() + cycle.reason[1:], "lead")
    show_facts(
        {
            "Target": cycle.target,
            "Began": f"{format_time(cycle.started_at)} ({cycle.trigger})",
            "Last step": format_time(cycle.updated_at),
            "Version": Link(cycle.version_id, "/adapters") if cycle.version_id else None,
        }
    )


def _show_plan(cycle: Cycle) -> None:
    with show_section("Plan"):
        if cycle.plan is None:
            why = "The reason above says what the data lacks."
            show_empty_state("There is no plan.", why if cycle.state == "SKIPPED" else "")
            return
        plan = cycle.plan
        show_text(plan.reason)
        for words in describe_replay(plan):
            show_text(words)
        show_facts(
            {
                "Base model": plan.base_model,
                "Goes on from": plan.start_version,
                "Base in 4 bits": plan.quantization,
                "Snapshot": plan.snapshot_id,
            }
        )
        rows = [
            {"method": stage.method, "data": stage.data}
            | stage.hyperparameters.model_dump(include=set(HYPERPARAMETERS))
            for stage in plan.stages
        ]
        show_table("Hyperparameters by stage", rows, ("method", "data", *HYPERPARAMETERS))
        if race := build_planned_race(plan):
            show_heading(race.title, 3)
            show_text(*race.words)
            if race.rows:
                challengers = [dict(zip(race.columns, row, strict=True)) for row in race.rows]
                show_table("Challengers", challengers, race.columns)


def _show_data(cycle: Cycle) -> None:
    with show_section("Data"):
        counts = cycle.counts
        if counts.is_empty:
            show_empty_state("Nothing was extracted.")
            return
        show_facts(
            {
                "Reviewed traffic": counts.reviewed.model_dump() if counts.reviewed else None,
                "To train on": counts.train,
                "To validate on": counts.validation,
                "Held out to judge by": counts.holdout,
                "Left out": counts.left_out,
                "Dropped": sum(counts.dropped.values()),
                "Why spans are dropped": Link("the target's data", f"/data?target={cycle.target}"),
            }
        )


def _build_stage_row(stage: StageResult) -> dict[str, Any]:
    took, expected = stage.figures, stage.figures.estimated
    peak, seconds = took.peak_memory_bytes, took.seconds
    expected_seconds = expected.seconds if expected else None
    return {
        "method": stage.method,
        "examples": took.examples,
        "steps": took.steps,
        "kept step": took.best_step,
        "took": format_duration(seconds) if seconds is not None else None,
        "expected": format_duration(expected_seconds) if expected_seconds is not None else None,
        "memory": format_gigabytes(peak) if peak else None,
        "tokens a second": took.tokens_per_second,
        "notes": "; ".join(filter(None, (stage.left_out, *took.recoveries))),
    }


def _find_version(store: Store, cycle: Cycle) -> Version | None:
    return store.version(cycle.version_id) if cycle.version_id else None


def _show_files(data_dir: Path, cycle: Cycle, version: Version | None) -> None:
    with show_section("Files"):
        folder = run_folder(data_dir, cycle)
        name = f"data_dir/{folder.relative_to(data_dir)}"
        facts = {"Run": name if folder.exists() else f"{name} (not there)"}
        if version:
            facts["Adapter"] = f"data_dir/{version.path}"
            if version.files_removed_at:
                facts["Removed"] = format_time(version.files_removed_at)
        show_facts(facts)
        if version and version.files:
            rows = [{"file": name, "sha-256": digest} for name, digest in version.files.items()]
            show_table("Files of the adapter", rows, ("file", "sha-256"))
