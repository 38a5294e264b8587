"""The page of one cycle: verdict, answers before and after, plan, data, loss curves, and files."""

from pathlib import Path
from typing import Any

from fastapi import Request
from nicegui import ui

from daemon.console.base.charts import (
    Curve,
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
    show_section,
    show_table,
    show_text,
)
from daemon.console.frame import show_frame
from daemon.console.report.answers import AnswerList
from daemon.console.report.guards import show_guards
from daemon.console.report.labels import show_label_sections
from daemon.console.report.measures import show_measures
from daemon.console.report.trust import TrustSection
from daemon.console.report.verdict import JudgedCycle, read_judged_cycle, show_verdict
from daemon.runtime.paths import run_folder
from daemon.runtime.units import format_duration, format_gigabytes
from daemon.views.run_files import read_progress
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


class CyclePage:
    """Shows one cycle, and follows it while it runs."""

    def __init__(self, session: PageSession, console: ConsoleContext, cycle: Cycle) -> None:
        self._session = session
        self._console = console
        self._cycle = cycle
        self._curves: dict[str, Curve] | None = None
        self._chart: ui.echart | None = None
        self._body = ui.element("div").classes("stack")
        self._timer = session.refresh_every(REFRESH_SECONDS, self.read)

    async def read(self) -> None:
        """Show the whole page anew after a step of the cycle, and only the curves between two steps."""
        console, cycle_id = self._console, self._cycle.id
        cycle = await self._session.read(lambda: console.store.cycle(cycle_id))
        curves = build_loss_curves(await self._session.read(lambda: read_progress(console.settings, cycle)))
        if self._curves is None or cycle != self._cycle or bool(curves) != bool(self._curves):
            self._cycle = cycle
            await self._show(curves)
        elif self._chart and curves != self._curves:
            redraw_curve_chart(self._chart, curves)
            self._gap.set_text(describe_loss_gap(curves))
        self._curves = curves
        if cycle.ended:
            self._timer.deactivate()

    async def _show(self, curves: dict[str, Curve]) -> None:
        console, cycle = self._console, self._cycle
        judged = await self._session.read(lambda: read_judged_cycle(console.store, console.statuses, cycle))
        version = await self._session.read(lambda: _find_version(console.store, cycle))
        self._body.clear()
        with self._body:
            _show_head(cycle)
            later = self._show_judgement(judged) if judged else ()
            _show_plan(cycle)
            _show_data(cycle)
            self._show_training(curves)
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

    def _show_training(self, curves: dict[str, Curve]) -> None:
        with show_section("Training"):
            if not curves and not self._cycle.training:
                show_empty_state("Nothing was trained.")
            if curves:
                self._chart = show_curve_chart(curves, "Losses of training and validation by step")
                self._gap = show_text(describe_loss_gap(curves), "muted")
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
