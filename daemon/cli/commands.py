"""The top-level commands: set up, run, and look."""

import signal
from importlib.resources import files
from pathlib import Path
from threading import Event
from typing import Annotated

import typer

from daemon.cli import adapters, approvals, cycles, data, experiments, operators, plans
from daemon.cli.output import (
    DEFAULT_CONFIG,
    AsJson,
    Config,
    TargetKey,
    opened,
    out,
    plain,
    print_json,
    print_table,
    progress_out,
    the_target,
)
from daemon.cli.progress import CycleProgress
from daemon.cli.report import print_run
from daemon.cli.work import work
from daemon.runtime.logs import configure_logging
from daemon.runtime.optional_deps import needs
from daemon.runtime.version import VERSION
from daemon.settings.load import load_settings
from daemon.views.status import describe_wait, read_status
from extractors.errors import LearndError
from registry.cycles import CycleState

app = typer.Typer(
    name="learnd",
    help="Continuous learning for LLM agents: from feedback on traces to a proven adapter in a running vLLM.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(cycles.app, name="cycles")
app.add_typer(experiments.app, name="experiments")
app.add_typer(adapters.app, name="adapters")
app.add_typer(approvals.app, name="approvals")
app.add_typer(data.app, name="data")
app.add_typer(operators.app, name="operators")
app.command()(plans.plan)
app.command()(plans.estimate)
app.command()(plans.rates)
app.command(hidden=True)(work)


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"learnd {VERSION}", highlight=False)
        raise typer.Exit


@app.callback()
def learnd(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Continuous learning for LLM agents."""


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="Where to write the settings.")] = DEFAULT_CONFIG,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented settings file."""
    if path.exists() and not force:
        raise LearndError(f"{path} is there already; edit it, or write it anew with --force")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(files("daemon").joinpath("learnd.example.toml").read_text("utf-8"), "utf-8")
    out.print(
        f"Wrote {path}. Name your project, model and vLLM in it, then run: learnd doctor", highlight=False
    )


@app.command()
def doctor(config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Check everything that the settings name; exits 1 where something is wrong."""
    from daemon.doctor import examine

    settings, found = load_settings(config), []
    for check in examine(settings):
        found.append(check)
        if not as_json:
            out.print(f"{'[green]ok[/]  ' if check.ok else '[red]FAIL[/]'} [bold]{check.name}[/]: ", end="")
            out.print(plain(check.found), markup=False, highlight=False)
            if not check.ok:
                out.print(plain(f"     → {check.what_to_do}"), markup=False, highlight=False)
    if as_json:
        print_json([check.model_dump() for check in found])
    if not all(check.ok for check in found):
        raise typer.Exit(1)


@app.command()
def run(config: Config = DEFAULT_CONFIG) -> None:
    """Run the daemon: poll, learn, promote and reconcile, until it is stopped."""
    needs("train", "torch", "trl", "peft")
    from daemon.service import serve

    settings = load_settings(config)
    configure_logging(settings.daemon.log_format)
    serve(settings)


@app.command()
def gateway(config: Config = DEFAULT_CONFIG) -> None:
    """Run the OpenAI-compatible gateway that agents talk to."""
    from daemon.gateway.run import serve

    settings = load_settings(config)
    configure_logging(settings.daemon.log_format)
    serve(settings)


@app.command()
def once(target: TargetKey = None, config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Run one cycle of a target in the foreground; Ctrl-C stops it where the next call goes on."""
    needs("train", "torch", "trl", "peft")
    from daemon.run_once import run_once

    settings, stop = load_settings(config), Event()
    configure_logging(settings.daemon.log_format)
    for wanted in (signal.SIGINT, signal.SIGTERM):
        signal.signal(wanted, lambda *_: stop.set())
    with CycleProgress(progress_out) as progress:
        cycle = run_once(settings, the_target(settings, target).key, on_progress=progress.show, stop=stop)
    if as_json:
        print_json(cycle)
    else:
        print_run(cycle, settings)
    if cycle.state is CycleState.FAILED:
        raise typer.Exit(1)


@app.command("status")
def status_command(config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Each target at a glance: active version, cycle, verdict, new feedback."""
    with opened(config) as (settings, store):
        statuses = read_status(settings, store)
    if as_json:
        print_json(statuses)
        return
    rows = [
        dict(status) | {"new_feedback": f"{status.new_feedback} of {status.needs_new_feedback}"}
        for status in statuses
    ]
    columns = (
        "target",
        "active_version",
        "cycle_state",
        "verdict",
        "new_feedback",
        "held",
        "last_poll_at",
        "last_poll_error",
    )
    print_table(rows, columns=columns, empty="No targets in the settings; add a [[targets]] section.")
    for status in statuses:
        if status.probation is not None:
            waits = describe_wait(status.probation)
            out.print(f"{status.probation.version} is on probation. It waits for {waits}.", highlight=False)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where everything of the demo lies.")] = Path(".demo"),
    corpus: Annotated[
        Path | None, typer.Option(envvar="DEMO_CORPUS", help='Lines `{"text": …, "label": …}` of your own.')
    ] = None,
    keep: Annotated[bool, typer.Option(help="Leave the servers running, to explore.")] = False,
    vllm_python: Annotated[
        Path, typer.Option(envvar="LEARND_VLLM_PYTHON", help="Python of the environment that has vLLM.")
    ] = Path(".venv-vllm/bin/python"),
) -> None:
    """The whole loop on real parts: Phoenix, feedback, training, verdict, hot swap under traffic."""
    needs("train", "torch", "trl", "peft")
    needs("phoenix", "phoenix")
    from daemon.demo.demo import run_demo

    run_demo(folder, corpus=corpus, keep=keep, vllm_python=vllm_python)
