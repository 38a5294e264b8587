"""`learnd plan`, `learnd estimate` and `learnd rates`: the next cycle, without running it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Annotated

import typer

from daemon.cli.first_poll import read_first_traffic
from daemon.cli.options import DEFAULT_CONFIG, AsJson, Config, TargetKey, choose_target, open_store
from daemon.cli.output import (
    error_console,
    print_facts,
    print_json,
    print_line,
    print_table,
)
from daemon.cli.progress import show_progress
from daemon.cli.report import print_expectations, print_section
from daemon.cycle.preview import Forecast, Preview, forecast, rehearse, run_rate_test
from daemon.cycle.replay import ReplayForecast
from daemon.runtime.clock import utc_now
from daemon.runtime.context import TargetContext
from daemon.runtime.optional_deps import require_extra
from daemon.runtime.units import format_duration, format_gigabytes
from daemon.views.plan_text import build_planned_race
from trainers.planning.apply_rules import ConsideredRule
from trainers.planning.plan import Plan, Skip
from trainers.trials.rate_range_test import MIN_TEST_STEPS

app = typer.Typer()


@app.command()
def plan(target: TargetKey = None, config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Show what a cycle would train now, and why, without training.

    Polls Phoenix first where nothing was read from it yet.
    """
    with _open_context(config, target) as context:
        with rehearse(context) as rehearsal:
            found = rehearsal.preview
        polled = context.store.target_state(context.target.key).last_poll_at
    if as_json:
        print_json(found)
        return
    _print_preview(found)
    since = (
        f"{polled:%Y-%m-%d %H:%M UTC}" if polled else "which has not happened yet: run `learnd once` first"
    )
    print_line(f"As of the last poll, {since}.")


@app.command()
def estimate(target: TargetKey = None, config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Estimate the memory, time and cost of the next training.

    Runs a few of its steps, whose result is thrown away.
    """
    with _open_context(config, target) as context:
        found, training = forecast(context), context.settings.training
    if as_json:
        print_json(found)
        return
    rows = [
        {
            "": f"{stage.method}: {stage.attempt}",
            "steps": stage.steps,
            "tokens": stage.tokens,
            "tokens/s": stage.tokens_per_second,
            "time": None if stage.seconds is None else format_duration(stage.seconds),
            "memory": f"{format_gigabytes(stage.memory_bytes)} of {format_gigabytes(stage.free_bytes)}",
            "cost": None if stage.seconds is None else training.format_price(stage.seconds),
        }
        for stage in found.stages
    ]
    print_table(rows, columns=("", "steps", "tokens", "tokens/s", "time", "memory", "cost"), empty="")
    if found.race_cost is not None:
        print_line(_describe_race_time(found, found.race_cost))
    for warning in _find_warnings(found):
        print_line(warning, style="yellow")
    if found.last is None:
        print_line("Nothing was trained before, so there is nothing to compare with.")
        return
    print_line(f"\nThe last training, {found.last.id}:")
    print_expectations(found.last, training)


def _describe_race_time(found: Forecast, cost: float) -> str:
    others = len(found.challengers)
    ways = "1 other way" if others == 1 else f"{others} other ways"
    time = "" if found.race_seconds is None else f", {format_duration(found.race_seconds)}"
    return f"{ways} to train may race with it, which takes up to {cost:g} times as long{time}."


def _find_warnings(found: Forecast) -> Iterator[str]:
    if not all(stage.fits for stage in found.stages):
        yield "The memory is probably too small; smaller batches and a base model in 4 bits will be tried."
    if found.seconds is None:
        yield "There is not enough memory for even a few steps, so the time cannot be estimated."
    elif found.limit_seconds is not None and found.seconds > found.limit_seconds:
        yield (
            f"It would take {format_duration(found.seconds)}, and max_minutes or max_cost allow "
            f"{format_duration(found.limit_seconds)}: it would end there, with its best checkpoint."
        )


@app.command()
def rates(
    target: TargetKey = None,
    steps: Annotated[int, typer.Option(min=MIN_TEST_STEPS, help="The number of steps of the test.")] = 60,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Test which learning rates suit the base model and the data.

    A learning-rate range test (Smith 2017), whose result is thrown away.
    """
    with _open_context(config, target) as context:
        found = run_rate_test(context, steps=steps)
    if as_json:
        print_json(found)
        return
    shown = found.points[:: max(1, len(found.points) // 20)]
    print_table(
        [point.model_dump() for point in shown], columns=("learning_rate", "loss", "smoothed"), empty=""
    )
    print_line()
    print_facts(found.model_dump(exclude={"points"}))


@contextmanager
def _open_context(config: Path, target: str | None) -> Iterator[TargetContext]:
    """Open the store and the progress display for a target, which is polled where it never was."""
    require_extra("train", "torch", "trl", "peft")
    with open_store(config) as (settings, store), show_progress(error_console) as progress:
        context = TargetContext(
            settings, choose_target(settings, target), store, utc_now, Event(), progress.show
        )
        read_first_traffic(context)
        yield context


def _print_preview(found: Preview) -> None:
    data, chosen = found.data, found.choice.plan
    print_facts(
        {
            "target": data.target,
            "train": data.train,
            "validation": data.validation,
            "holdout": data.holdout,
            "left out": data.left_out,
        }
    )
    print_line()
    rows = [
        {"": _find_part(rule, chosen), **rule.model_dump(include={"method", "needs"})}
        for rule in found.choice.considered
    ]
    print_table(rows, columns=("", "method", "needs"), empty="No rule was considered.")
    print_line()
    if isinstance(chosen, Skip):
        print_facts({"plan": "nothing is trained", "because": chosen.reason})
        return
    print_facts(
        {"plan": chosen.method, "because": chosen.reason, "from": chosen.start_version or "the base model"}
    )
    for stage in chosen.stages:
        print_line()
        print_facts({"stage": f"{stage.method} on {stage.data}", **stage.hyperparameters.model_dump()})
    if found.replay:
        print_line()
        print_line(_describe_replay(found.replay))
    if race := build_planned_race(chosen):
        print_section(race)


def _describe_replay(replay: ReplayForecast) -> str:
    """Say what is mixed into SFT that the base model writes itself, and whether it has to do so first."""
    if replay.why_not:
        return f"Nothing is mixed in against forgetting: {replay.why_not}."
    written = "has written them already" if replay.is_written else "has to write them first"
    return (
        f"Mixed into SFT against forgetting: up to {replay.examples} examples by the base model itself, "
        f"{100 * replay.share:g}% of the target's own; it {written}."
    )


def _find_part(rule: ConsideredRule, chosen: Plan | Skip) -> str:
    """Return the part of a rule in the plan; empty where its needs are not met."""
    if not rule.met or isinstance(chosen, Skip):
        return ""
    return "default" if rule.method == chosen.name else "challenger"
