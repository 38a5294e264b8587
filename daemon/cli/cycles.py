"""`learnd cycles`: what was learned when, and why not."""

from typing import Annotated, Any

import typer

from daemon.cli.output import (
    DEFAULT_CONFIG,
    AsJson,
    Config,
    TargetKey,
    actor,
    opened,
    out,
    print_facts,
    print_json,
    print_table,
    the_target,
)
from daemon.service import utc_now
from daemon.settings import TrainingSettings
from daemon.words import duration, gigabytes
from registry.cycles import Cycle, Trained
from trainers.estimate import Estimate

app = typer.Typer(help="Passes of the loop.", no_args_is_help=True)


@app.command("list")
def list_(
    target: TargetKey = None,
    limit: Annotated[int, typer.Option(min=1)] = 20,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """The last cycles, newest first."""
    with opened(config) as (settings, store):
        key = settings.target(target).key if target else None
        found = store.cycles(key, limit=limit)
    rows = [
        cycle.model_dump(include={"id", "target", "state", "verdict", "version_id", "started_at", "reason"})
        for cycle in found
    ]
    if as_json:
        print_json(rows)
        return
    columns = ("id", "target", "state", "verdict", "version_id", "started_at", "reason")
    print_table(rows, columns=columns, empty="No cycles yet; `learnd cycles start` has the daemon begin one.")


@app.command()
def start(target: TargetKey = None, config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Have the daemon begin a cycle now, whatever the schedule says."""
    with opened(config) as (settings, store):
        key = the_target(settings, target).key
        store.ask_for_cycle(key, actor=actor(), now=utc_now())
    if as_json:
        print_json({"target": key})
    else:
        words = f"A cycle of {key} begins within seconds, where a daemon runs; `learnd cycles list` shows it."
        out.print(words, highlight=False)


@app.command()
def show(cycle_id: str, config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """One cycle: data, plan, measures, verdict."""
    with opened(config) as (settings, store):
        cycle = store.cycle(cycle_id)
    if as_json:
        print_json(cycle)
    else:
        describe(cycle, settings.training)


STAGE = ("method", "examples", "steps", "train_loss", "seconds", "tokens_per_second", "memory", "notes")


def _stage(stage: Trained) -> dict[str, Any]:
    """A stage of the plan as a row."""
    peak = stage.figures.get("peak_memory_bytes")
    packed = "the base in 4 bits" if stage.figures.get("quantization") else ""
    notes = [stage.left_out, packed, *stage.figures.get("recoveries", ())]
    return {
        "method": stage.method,
        **{name: stage.figures.get(name) for name in STAGE[1:6]},
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


def describe(cycle: Cycle, training: TrainingSettings) -> None:
    """Print a cycle for people."""
    facts: dict[str, Any] = {
        "cycle": cycle.id,
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
    print_facts(facts)
    if cycle.training:
        out.print()
        print_table([_stage(stage) for stage in cycle.training], columns=STAGE, empty="")
        out.print()
        print_expectations(cycle, training)
    if cycle.report is None:
        return
    out.print()
    print_table(
        [
            side.model_dump(include={"name", "accuracy", "valid_rate", "latency_ms"}) | side.measures
            for side in cycle.report.sides
        ],
        columns=("name", "accuracy", "valid_rate", "latency_ms", *cycle.report.sides[0].measures),
        empty="",
    )
    out.print()
    rows = [
        comparison.model_dump() | {"effect": comparison.effect} for comparison in cycle.report.comparisons
    ]
    columns = ("against", "n", "gained", "lost", "effect", "interval", "p_value", "smallest_effect")
    print_table(rows, columns=columns, empty="")
