"""`learnd once`: one cycle in the foreground."""

import signal
from threading import Event

import typer

from daemon.cli.options import DEFAULT_CONFIG, AsJson, Config, TargetKey, choose_target
from daemon.cli.output import error_console, print_json
from daemon.cli.progress import show_progress
from daemon.cli.report import print_run
from daemon.run_once import run_once
from daemon.runtime.logs import configure_logging
from daemon.runtime.optional_deps import require_extra
from daemon.settings.load import load_settings
from registry.cycles import CycleState

app = typer.Typer()


@app.command()
def once(target: TargetKey = None, config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Run one cycle of a target in the foreground.

    Ctrl-C stops it, a second Ctrl-C at once; the next call goes on where it stopped.
    """
    require_extra("train", "torch", "trl", "peft")
    settings, stop = load_settings(config), Event()
    configure_logging(settings.daemon.log_format)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: _stop(stop))
    with show_progress(error_console) as progress:
        cycle = run_once(settings, choose_target(settings, target).key, on_progress=progress.show, stop=stop)
    if as_json:
        print_json(cycle)
    else:
        print_run(cycle, settings)
    if cycle.state is CycleState.FAILED:
        raise typer.Exit(1)


def _stop(stop: Event) -> None:
    """Ask the cycle to stop. Raises KeyboardInterrupt at the second call: a server may not be answering."""
    if stop.is_set():
        raise KeyboardInterrupt
    stop.set()
