"""`learnd experiments`: trainings and their verdicts, one in full or several side by side."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from daemon.cli.options import DEFAULT_CONFIG, AsJson, Config, Run, TargetKey, open_store
from daemon.cli.output import console, print_json, print_line, print_table
from daemon.cli.report import print_run, print_section
from daemon.views.experiments import (
    ComparisonFact,
    Experiment,
    ExperimentComparison,
    build_compare_url,
    build_details,
    compare_experiments,
    describe_phoenix_page,
    find_run,
    list_experiments,
)
from daemon.views.report_text import Section, format_number, format_p_value
from evaluation.report import Verdict
from extractors.errors import LearndError
from trainers.planning.hyperparameters import Method

app = typer.Typer(no_args_is_help=True)
COLUMNS = {
    "run": 25,
    "target": 16,
    "method": 8,
    "winner": 13,
    "verdict": 12,
    "metric": 8,
    "base": 5,
    "live": 5,
    "candidate": 9,
    "effect": 6,
    "p": 7,
    "n": 3,
    "began": 10,
}
"""Columns of the list, and the width in which none of their words is broken."""
LEFT_OUT_FIRST = ("began", "n", "base", "metric", "live", "candidate")
"""Columns that a narrow terminal has no room for, in this order; a run's id begins with the time."""

TITLES = {"run": "Runs", "plan": "Plans, where they differ", "data": "Data", "measures": "Measures"}
"""Headings of a comparison, by the group of the facts."""


@app.command("list")
def list_(
    target: TargetKey = None,
    method: Annotated[Method | None, typer.Option(help="List only runs that train with this method.")] = None,
    verdict: Annotated[
        Verdict | None, typer.Option(case_sensitive=False, help="List only runs with this verdict.")
    ] = None,
    since: Annotated[
        datetime | None, typer.Option(help="List only runs that began at this time or later (UTC).")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(help="List only runs that began before this time (UTC).")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many runs to list at most.")] = 20,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """List the last runs, newest first."""
    with open_store(config) as (settings, store):
        found = list_experiments(
            store,
            settings.phoenix,
            target=settings.find_target(target).key if target else None,
            method=method,
            verdict=verdict,
            since=since.replace(tzinfo=UTC) if since else None,
            until=until.replace(tzinfo=UTC) if until else None,
            limit=limit,
        )
    if as_json:
        print_json(found)
        return
    empty = "No run fits. A cycle is a run as soon as it trains; `learnd cycles list` lists all cycles."
    columns = _choose_columns(console.width)
    print_table([_build_row(each) for each in found], columns=columns, empty=empty)
    if found and (left_out := [name for name in COLUMNS if name not in columns]):
        print_line(f"No room for {', '.join(left_out)}; a wider terminal or --json has them.", style="dim")


@app.command()
def show(run: Run, config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Show one run in full: its data, plan, trainings, measures and verdict."""
    with open_store(config) as (settings, store):
        cycle = find_run(store, run)
        if as_json:
            print_json(build_details(store, settings.phoenix, cycle))
        else:
            print_run(cycle, settings)


@app.command("compare")
def compare_(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN RUN…", help="Two runs or more, by id or version.")
    ],
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Compare runs side by side: plan, data and measures. A * marks the best."""
    with open_store(config) as (settings, store):
        compared = compare_experiments(store, settings.phoenix, [find_run(store, run) for run in runs])
    if len(compared.experiments) < 2:
        same = f" (all of these are {compared.experiments[0].id})" if len(runs) > 1 else ""
        raise LearndError(f"there is nothing to compare: name at least two runs{same}")
    if as_json:
        print_json(compared)
    else:
        _print_compared(compared)


@app.command("open")
def open_(run: Run, config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Print the link to the page in Phoenix that compares the answers of both sides."""
    with open_store(config) as (settings, store):
        cycle = find_run(store, run)
    url = build_compare_url(cycle, settings.phoenix)
    if as_json:
        print_json(
            {"run": cycle.id, "url": url, "in_phoenix": describe_phoenix_page(cycle, settings.phoenix)}
        )
    elif url:
        console.print(url, markup=False, highlight=False, soft_wrap=True)
    else:
        raise LearndError(
            f"{cycle.id} has no page in Phoenix: {describe_phoenix_page(cycle, settings.phoenix)}"
        )


def _choose_columns(width: int) -> list[str]:
    """Return the columns that fit into a terminal of this width."""
    columns = list(COLUMNS)
    for name in LEFT_OUT_FIRST:
        if sum(COLUMNS[each] + 2 for each in columns) <= width:
            break
        columns.remove(name)
    return columns


def _build_row(each: Experiment) -> dict[str, Any]:
    second = "" if each.look == "first" else ", second look"
    return {
        "run": each.id,
        "target": each.target,
        "method": f"{each.method}{second}",
        "winner": each.winner,
        "verdict": each.verdict or each.state,
        "metric": each.metric,
        "base": format_number(each.base),
        "live": format_number(each.live),
        "candidate": format_number(each.candidate),
        "effect": None if each.effect is None else f"{each.effect:+.3f}",
        "p": None if each.p_value is None else format_p_value(each.p_value),
        "n": each.n,
        "began": each.started_at,
    }


def _print_compared(compared: ExperimentComparison) -> None:
    runs = [each.id for each in compared.experiments]
    for group, title in TITLES.items():
        facts = [fact for fact in compared.facts if fact.group == group]
        if group == "plan":
            facts = [fact for fact in facts if len({fact.values.get(run) for run in runs}) > 1]
        rows = tuple(_build_fact_row(fact, runs) for fact in facts)
        words = () if rows else ("nothing",)
        print_section(Section(title=title, words=words, columns=("", *runs), rows=rows))
    print_line()
    for note in compared.notes:
        print_line(note)


def _build_fact_row(fact: ComparisonFact, runs: list[str]) -> tuple[str, ...]:
    cells = (f"{_to_text(fact.values.get(run))}{' *' if run in fact.best else ''}" for run in runs)
    return fact.name.replace("_", " "), *cells


def _to_text(value: Any) -> str:
    match value:
        case None:
            return "–"
        case tuple():
            return " to ".join(f"{bound:+.3f}" for bound in value)
        case float():
            return f"{value:.3g}"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M UTC}"
        case _:
            return str(value)
