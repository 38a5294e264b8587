"""A run on the terminal: data, plan, trainings, the whole report, and where Phoenix shows it."""

from typing import Any

from rich.markup import escape
from rich.table import Table

from daemon.cli.output import out, plain, print_facts, print_table
from daemon.runtime.units import duration, gigabytes
from daemon.settings.load import Settings
from daemon.settings.servers import TrainingSettings
from daemon.views.experiments import in_phoenix
from daemon.views.report_text import Section, sections
from registry.cycles import Cycle, Trained
from trainers.estimate.memory_and_time import Estimate

STAGE = (
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
    """Print a cycle for people."""
    facts: dict[str, Any] = {
        "run": cycle.id,
        "target": cycle.target,
        "state": cycle.state,
        "verdict": cycle.verdict,
        "reason": cycle.reason,
        "began": f"{cycle.started_at:%Y-%m-%d %H:%M:%S UTC} ({cycle.trigger})",
        "data": cycle.counts,
        "version": cycle.version_id,
    }
    if cycle.plan:
        facts["plan"] = cycle.plan.reason
    print_facts(facts | {"in Phoenix": in_phoenix(cycle, settings.phoenix)})
    if cycle.training:
        out.print()
        print_table([_stage(stage) for stage in cycle.training], columns=STAGE, empty="")
        out.print()
        print_expectations(cycle, settings.training)
    for section in sections(cycle.report) if cycle.report else ():
        print_section(section)


def print_section(section: Section) -> None:
    """Print a part of a report."""
    out.print(f"\n[bold]{escape(section.title)}[/]")
    for words in section.words:
        out.print(plain(words), markup=False, highlight=False)
    if section.rows:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in section.columns:
            table.add_column(escape(column), overflow="fold")
        for row in section.rows:
            table.add_row(*(escape(plain(cell)) or "–" for cell in row))
        out.print(table)


def _stage(stage: Trained) -> dict[str, Any]:
    """A stage of the plan as a row."""
    peak = stage.figures.get("peak_memory_bytes")
    packed = "the base in 4 bits" if stage.figures.get("quantization") else ""
    notes = [stage.left_out, packed, *stage.figures.get("recoveries", ())]
    return {
        "method": stage.method,
        "run": stage.run,
        **{name: stage.figures.get(name) for name in STAGE[2:7]},
        "memory": gigabytes(peak) if peak else None,
        "notes": "; ".join(filter(None, notes)),
    }


def print_expectations(cycle: Cycle, training: TrainingSettings) -> None:
    """What the cycle's trainings took, each beside what was expected of it in its first steps."""
    rows = [_expectation(stage, training) for stage in cycle.training if stage.figures.get("estimated")]
    columns = ("method", "", "steps", "time", "memory", "cost")
    print_table([row for pair in rows for row in pair], columns=columns, empty="")


def _expectation(stage: Trained, training: TrainingSettings) -> tuple[dict[str, Any], dict[str, Any]]:
    took, expected = stage.figures, Estimate.model_validate(stage.figures["estimated"])
    return (
        {
            "method": stage.method,
            "": "expected",
            "steps": expected.steps,
            "time": None if expected.seconds is None else duration(expected.seconds),
            "memory": gigabytes(expected.memory.total),
            "cost": None if expected.seconds is None else training.price(expected.seconds),
        },
        {
            "": "took",
            "steps": took["steps"],
            "time": duration(took["seconds"]),
            "memory": gigabytes(took["peak_memory_bytes"]),
            "cost": training.price(took["seconds"]),
        },
    )
