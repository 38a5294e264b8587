"""The page of one cycle, with its plan, data, curves, verdict, answers before and after, and files."""

from collections.abc import Sequence
from typing import Any

from fastapi import Request
from nicegui import ui

from daemon.console.charts import Curve, bar_chart, curve_chart, gap, losses, redraw
from daemon.console.frame import frame
from daemon.console.parts import (
    Link,
    Tagged,
    chip,
    facts,
    heading,
    moment,
    nothing,
    percent,
    section,
    table,
    text,
)
from daemon.console.visit import Console, Visit
from daemon.runs import SideBySide, answers_of, progress_of, run_folder
from daemon.words import duration, gigabytes
from evaluation.report import Answer, Report
from registry.cycles import Cycle, Trained
from registry.store.cycles import UnknownCycle
from trainers.estimate import Estimate

ANSWERS = 20
"""Held-out items that are shown at once."""
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
        cycle = self._cycle
        self._body.clear()
        with self._body:
            _head(cycle)
            _plan(cycle)
            _data(cycle)
            self._training(curves)
            if cycle.report:
                _verdict(cycle.report)
                with section("Answers to held-out traffic"):
                    answers = Answers(self._visit, cycle)
            await _files(self._visit, cycle)
        if cycle.report:
            await answers.read()

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
        text(cycle.reason, "lead")
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


def _verdict(report: Report) -> None:
    with section("Verdict", f"On {report.gold_size} held-out items with a known answer."):
        text(report.reason)
        labels = {side.name: _role(report, side.name) for side in report.sides}
        bar_chart(
            {labels[side.name]: side.accuracy for side in report.sides}, "Accuracy of each side, in percent"
        )
        rows = [
            {
                "side": labels[side.name],
                "accuracy": percent(side.accuracy),
                "valid answers": percent(side.valid_rate),
                "ms an answer": f"{side.latency_ms:.0f}",
                "rejected answers again": side.repeated_rejected,
                **side.measures,
            }
            for side in report.sides
        ]
        table("What each side answers", rows, tuple(rows[0]), numbers=tuple(rows[0])[1:])
        heading("The candidate against the others", 3)
        compared = [
            {
                "against": labels[each.against],
                "change": f"{each.effect:+.1%}",
                "95% interval": f"{each.interval[0]:+.1%} to {each.interval[1]:+.1%}",
                "p (better)": f"{each.p_value:.2g}",
                "p (worse)": f"{each.p_worse:.2g}",
                "gained": each.gained,
                "lost": each.lost,
                "items": each.n,
                "smallest change that would show": percent(each.smallest_effect),
            }
            for each in report.comparisons
        ]
        table("Paired comparisons", compared, tuple(compared[0]), numbers=tuple(compared[0])[1:])


def _role(report: Report, side: str) -> str:
    """What a side is, beside its name."""
    role = "candidate" if side == report.sides[-1].name else "live" if side == report.live else ""
    return f"{side} ({role})" if role else side


class Answers:
    """Held-out items, and what each side said to them."""

    def __init__(self, visit: Visit, cycle: Cycle) -> None:
        self._visit = visit
        self._cycle = cycle
        self._offset = 0
        with ui.element("div").classes("filters"):
            self._changed = ui.checkbox("Only where right became wrong, or wrong right", value=True)
            self._changed.on_value_change(self._from_the_start)
        self._rows = ui.element("div")
        self._more = ui.button("Show more", on_click=self.read).props("flat no-caps color=primary")

    async def _from_the_start(self) -> None:
        self._offset = 0
        self._rows.clear()
        await self.read()

    async def read(self) -> None:
        """Show the next ones."""
        settings, cycle = self._visit.console.settings, self._cycle
        changed, offset = bool(self._changed.value), self._offset
        self._more.disable()
        found = await self._visit.read(
            lambda: answers_of(settings, cycle, changed=changed, offset=offset, limit=ANSWERS + 1)
        )
        shown = found[:ANSWERS]
        if (changed, offset) != (bool(self._changed.value), self._offset):
            return  # Something else was asked for meanwhile.
        self._offset += len(shown)
        with self._rows:
            if not self._offset:
                nothing("There are none.")
            for item in shown:
                _item(item)
        self._more.enable()
        self._more.set_visibility(len(found) > ANSWERS)


def _item(item: SideBySide) -> None:
    with ui.element("article").classes("answers"):
        unread = f"item {item.item_id} (its snapshot cannot be read)"
        asked = item.prompt[-1].content if item.prompt else unread
        Tagged("pre", asked).classes("said")
        if item.gold is not None:
            _line("should be", item.gold, "")
        for side, answer in item.answers.items():
            _line(side, answer.text, _judged(answer))


def _judged(answer: Answer) -> str:
    said = {True: "right", False: "wrong", None: "no known answer"}[answer.correct]
    return said if answer.valid else f"{said}, not valid"


def _line(side: str, words: str, judged: str) -> None:
    with ui.element("div").classes("answer"):
        Tagged("span", side).classes("side")
        Tagged("span", words or "(empty)").classes("words")
        if judged:
            chip(judged, "good" if judged == "right" else "bad" if judged.startswith("wrong") else "plain")


async def _files(visit: Visit, cycle: Cycle) -> None:
    version_id = cycle.version_id
    version = await visit.read(lambda: visit.console.store.version(version_id)) if version_id else None
    with section("Files"):
        folder = run_folder(visit.console.settings, cycle)
        known = {"Run": str(folder) if folder.exists() else f"{folder} (not there)"}
        files: Sequence[tuple[str, str]] = ()
        if version:
            known["Adapter"] = str(visit.console.settings.data_dir / version.path)
            if version.files_removed_at:
                known["Removed"] = moment(version.files_removed_at)
            files = tuple(version.files.items())
        facts(known)
        if files:
            rows = [{"file": name, "sha-256": digest} for name, digest in files]
            table("Files of the adapter", rows, ("file", "sha-256"))
