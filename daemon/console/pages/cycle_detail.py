"""The page of one cycle, with its verdict, answers before and after, plan, data, curves, and files."""

from collections.abc import Sequence
from typing import Any

from fastapi import Request
from nicegui import ui

from daemon.console.base.charts import Curve, curve_chart, gap, losses, redraw
from daemon.console.base.page_session import Console, Visit
from daemon.console.base.widgets import Link, chip, facts, moment, nothing, section, table, text
from daemon.console.frame import frame
from daemon.console.report.answers import Answers
from daemon.console.report.labels import labels_sections
from daemon.console.report.measures import measures_section
from daemon.console.report.trust import Trust
from daemon.console.report.verdict import Judged, guards_section, verdict_section
from daemon.runtime.paths import adapter_folder, run_folder
from daemon.runtime.units import duration, gigabytes
from daemon.views.run_files import progress_of
from registry.cycles import Cycle, Trained
from registry.store.cycles import UnknownCycle
from trainers.estimate.memory_and_time import Estimate

REFRESH_SECONDS = 3.0


def experiment_page(console: Console) -> None:
    """At `/experiments/{cycle_id}`."""

    @ui.page("/experiments/{cycle_id}")
    async def page(request: Request, cycle_id: str) -> None:
        visit = Visit.of(console, request)
        cycle = await visit.read(lambda: _cycle(console, cycle_id))
        with frame(visit, f"Cycle {cycle_id}", inside="Experiments", wide=True):
            if cycle is None:
                nothing(f"There is no cycle {cycle_id}.", "The list of experiments has all cycles.")
                return
            Experiment(visit, cycle)


def _cycle(console: Console, cycle_id: str) -> Cycle | None:
    try:
        return console.store.cycle(cycle_id)
    except UnknownCycle:
        return None


class Experiment:
    """One cycle's page, which follows the cycle while it runs."""

    def __init__(self, visit: Visit, cycle: Cycle) -> None:
        self._visit = visit
        self._cycle = cycle
        self._curves: dict[str, Curve] | None = None
        self._chart: ui.echart | None = None
        self._body = ui.element("div").classes("stack")
        self._timer = visit.every(REFRESH_SECONDS, self.read)

    async def read(self) -> None:
        """Show what is new: the whole page after a step of the cycle, the curves between two."""
        console, cycle_id = self._visit.console, self._cycle.id
        cycle = await self._visit.read(lambda: console.store.cycle(cycle_id))
        curves = losses(await self._visit.read(lambda: progress_of(console.settings, cycle)))
        if self._curves is None or cycle != self._cycle or bool(curves) != bool(self._curves):
            self._cycle = cycle
            await self._show(curves)
        elif self._chart and curves != self._curves:
            redraw(self._chart, curves)
            self._gap.set_text(gap(curves))
        self._curves = curves
        if cycle.ended:
            self._timer.deactivate()

    async def _show(self, curves: dict[str, Curve]) -> None:
        console, cycle = self._visit.console, self._cycle
        judged = await self._visit.read(lambda: Judged.read(console, cycle))
        self._body.clear()
        with self._body:
            _head(cycle)
            later = self._judged(judged) if judged else ()
            _plan(cycle)
            _data(cycle)
            self._training(curves)
            await _files(self._visit, cycle)
        for part in later:
            await part.read()

    def _judged(self, judged: Judged) -> Sequence[Answers | Trust]:
        """Show what the evaluation found; returns what is still to be read."""
        verdict_section(judged, self._visit.console)
        guards_section(judged.report)
        measures_section(judged.report)
        labels_sections(judged.report)
        trust = Trust(self._visit, judged)
        with section("Answers to held-out traffic"):
            answers = Answers(self._visit, self._cycle, judged.report)
        return answers, trust

    def _training(self, curves: dict[str, Curve]) -> None:
        with section("Training"):
            if not curves and not self._cycle.training:
                nothing("Nothing was trained.")
            if curves:
                self._chart = curve_chart(curves, "Losses of training and validation by step")
                self._gap = text(gap(curves), "muted")
            if self._cycle.training:
                rows = [_stage(stage) for stage in self._cycle.training]
                table("Trainings by stage", rows, tuple(rows[0]), numbers=("examples", "steps"))


def _head(cycle: Cycle) -> None:
    with ui.element("div").classes("line"):
        chip(cycle.state)
        if cycle.verdict:
            chip(cycle.verdict)
    if cycle.reason:
        text(cycle.reason[0].upper() + cycle.reason[1:], "lead")
    facts(
        {
            "Target": cycle.target,
            "Began": f"{moment(cycle.started_at)} ({cycle.trigger})",
            "Last step": moment(cycle.updated_at),
            "Version": Link(cycle.version_id, "/adapters") if cycle.version_id else None,
        }
    )


def _plan(cycle: Cycle) -> None:
    with section("Plan"):
        if cycle.plan is None:
            why = "The reason above says what the data lacks."
            nothing("There is no plan.", why if cycle.state == "SKIPPED" else "")
            return
        plan = cycle.plan
        text(plan.reason)
        facts(
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
        table("Hyperparameters by stage", rows, ("method", "data", *HYPERPARAMETERS))


HYPERPARAMETERS = ("learning_rate", "epochs", "batch_size", "lora_rank", "lora_alpha", "max_length")


def _data(cycle: Cycle) -> None:
    with section("Data"):
        counts = cycle.counts
        if not counts:
            nothing("Nothing was extracted.")
            return
        facts(
            {
                "Reviewed traffic": counts.get("reviewed"),
                "To train on": counts.get("train"),
                "To validate on": counts.get("validation"),
                "Held out to judge by": counts.get("holdout"),
                "Left out": counts.get("left_out"),
                "Dropped": sum(counts.get("dropped", {}).values()),
                "Why spans are dropped": Link("the target's data", f"/data?target={cycle.target}"),
            }
        )


def _stage(stage: Trained) -> dict[str, Any]:
    took, expected = stage.figures, stage.figures.get("estimated")
    estimate = Estimate.model_validate(expected) if expected else None
    peak, seconds = took.get("peak_memory_bytes"), took.get("seconds")
    expected_seconds = estimate.seconds if estimate else None
    return {
        "method": stage.method,
        "examples": took.get("examples"),
        "steps": took.get("steps"),
        "kept step": took.get("best_step"),
        "took": duration(seconds) if seconds is not None else None,
        "expected": duration(expected_seconds) if expected_seconds is not None else None,
        "memory": gigabytes(peak) if peak else None,
        "tokens a second": took.get("tokens_per_second"),
        "notes": "; ".join(filter(None, (stage.left_out, *took.get("recoveries", ())))),
    }


async def _files(visit: Visit, cycle: Cycle) -> None:
    version_id = cycle.version_id
    version = await visit.read(lambda: visit.console.store.version(version_id)) if version_id else None
    with section("Files"):
        folder = run_folder(visit.console.settings.data_dir, cycle)
        known = {"Run": str(folder) if folder.exists() else f"{folder} (not there)"}
        files: Sequence[tuple[str, str]] = ()
        if version:
            known["Adapter"] = str(adapter_folder(visit.console.settings.data_dir, version))
            if version.files_removed_at:
                known["Removed"] = moment(version.files_removed_at)
            files = tuple(version.files.items())
        facts(known)
        if files:
            rows = [{"file": name, "sha-256": digest} for name, digest in files]
            table("Files of the adapter", rows, ("file", "sha-256"))
