"""`learnd cycles`: what was learned when, and why not."""

from typing import Annotated

import typer

from daemon.cli.options import (
    DEFAULT_CONFIG,
    AsJson,
    Config,
    Run,
    TargetKey,
    choose_target,
    find_actor,
    open_store,
)
from daemon.cli.output import print_json, print_line, print_table
from daemon.runtime.clock import utc_now

app = typer.Typer(no_args_is_help=True)


@app.command("list")
def list_(
    target: TargetKey = None,
    limit: Annotated[int, typer.Option(min=1, help="How many cycles to list at most.")] = 20,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """List the last cycles, newest first."""
    with open_store(config) as (settings, store):
        key = settings.find_target(target).key if target else None
        found = store.cycles(key, limit=limit)
    rows = [
        cycle.model_dump(include={"id", "target", "state", "verdict", "version_id", "started_at", "reason"})
        for cycle in found
    ]
    if as_json:
        print_json(rows)
        return
    columns = ("id", "target", "state", "verdict", "version_id", "started_at", "reason")
    print_table(
        rows, columns=columns, empty="No cycles yet; `learnd cycles start` asks the daemon to begin one."
    )


@app.command()
def start(target: TargetKey = None, config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Ask the daemon to begin a cycle now, whatever the schedule says."""
    with open_store(config) as (settings, store):
        key = choose_target(settings, target).key
        store.request_cycle(key, actor=find_actor(), now=utc_now())
    if as_json:
        print_json({"target": key})
    else:
        words = f"A cycle of {key} begins within seconds, where a daemon runs; `learnd cycles list` shows it."
        print_line(words)


@app.command()
def show(cycle: Run, config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Show one cycle: its data, plan, measures and verdict."""
    from daemon.cli.report import print_run
    from daemon.views.experiments import find_run

    with open_store(config) as (settings, store):
        found = find_run(store, cycle)
    if as_json:
        print_json(found)
    else:
        print_run(found, settings)
