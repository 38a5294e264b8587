"""Print a run: its data, plan, trainings, report, and its page in Phoenix."""

from typing import Any

from rich.markup import escape
from rich.table import Table

from daemon.cli.output import (
    console,
    print_facts,
    print_heading,
    print_line,
    print_table,
    remove_control_characters,
)
from daemon.runtime.units import format_duration, format_gigabytes
from daemon.settings.load import Settings
from daemon.settings.servers import TrainingSettings
from daemon.views.experiments import describe_phoenix_page
from daemon.views.plan_text import build_planned_race, describe_replay
from daemon.views.report_text import Section, build_sections
from registry.cycles import Cycle, StageResult
from trainers.estimate.estimates import TrainingEstimate

STAGE_COLUMNS = (
    "method",
    "run",
    "examples",
    "steps",
    "train_loss",
    "seconds",
    "tokens_per_second",
    "memory",
    "notes",
)


def print_run(cycle: Cycle, settings: Settings) -> None:
    """Print a cycle with its trainings and its report."""
    facts: dict[str, Any] = {
        "run": cycle.id,
        "target": cycle.target,
        "state": cycle.state,
        "verdict": cycle.verdict,
        "reason": cycle.reason,
        "began": f"{cycle.started_at:%Y-%m-%d %H:%M:%S UTC} ({cycle.trigger})",
        "data": cycle.counts.model_dump(),
        "version": cycle.version_id,
    }
    if cycle.plan:
        facts["plan"] = "; ".join((cycle.plan.reason, *describe_replay(cycle.plan)))
        if cycle.plan.winner:
            facts["winner"] = cycle.plan.winner
    print_facts(facts | {"in Phoenix": describe_phoenix_page(cycle, settings.phoenix)})
    if cycle.plan and (race := build_planned_race(cycle.plan)):
        print_section(race)
    if cycle.training:
        print_line()
        print_table([_build_stage_row(stage) for stage in cycle.training], columns=STAGE_COLUMNS, empty="")
        print_line()
        print_expectations(cycle, settings.training)
    for section in build_sections(cycle.report) if cycle.report else ():
        print_section(section)


def print_section(section: Section) -> None:
    """Print a section of a report: its title, its sentences and its table."""
    print_heading(section.title)
    for words in section.words:
        print_line(words)
    if section.rows:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in section.columns:
            table.add_column(escape(column), overflow="fold")
        for row in section.rows:
            table.add_row(*(escape(remove_control_characters(cell)) or "–" for cell in row))
        console.print(table)


def _build_stage_row(stage: StageResult) -> dict[str, Any]:
    """Return a stage of the plan as a row."""
    figures = stage.figures
    packed = "base model in 4 bits" if figures.quantization else ""
    notes = [stage.left_out, packed, *figures.recoveries]
    return {
        "method": stage.method,
        "run": stage.run,
        "examples": figures.examples,
        "steps": figures.steps,
        "train_loss": figures.train_loss,
        "seconds": figures.seconds,
        "tokens_per_second": figures.tokens_per_second,
        "memory": format_gigabytes(figures.peak_memory_bytes) if figures.peak_memory_bytes else None,
        "notes": "; ".join(filter(None, notes)),
    }


def print_expectations(cycle: Cycle, training: TrainingSettings) -> None:
    """Print what each training took, and above it the estimate from its first steps."""
    rows = [
        _build_expectation_rows(stage, stage.figures.estimated, training)
        for stage in cycle.training
        if stage.figures.estimated
    ]
    columns = ("method", "", "steps", "time", "memory", "cost")
    print_table([row for pair in rows for row in pair], columns=columns, empty="")


def _build_expectation_rows(
    stage: StageResult, expected: TrainingEstimate, training: TrainingSettings
) -> tuple[dict[str, Any], dict[str, Any]]:
    took = stage.figures
    return (
        {
            "method": stage.method,
            "": "expected",
            "steps": expected.steps,
            "time": None if expected.seconds is None else format_duration(expected.seconds),
            "memory": format_gigabytes(expected.memory.total),
            "cost": None if expected.seconds is None else training.format_price(expected.seconds),
        },
        {
            "": "took",
            "steps": took.steps,
            "time": None if took.seconds is None else format_duration(took.seconds),
            "memory": None if took.peak_memory_bytes is None else format_gigabytes(took.peak_memory_bytes),
            "cost": None if took.seconds is None else training.format_price(took.seconds),
        },
    )
