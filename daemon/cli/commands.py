"""The table of the commands. It imports none of them: a command's module is loaded when the command runs."""

from typing import Annotated, Any

import typer

from daemon.cli.lazy import LazyCommand, LazyGroup, QuickCommand

COMMANDS = (
    ("init", "daemon.cli.first_steps", "Write a settings file with comments."),
    ("doctor", "daemon.cli.first_steps", "Check everything that the settings name."),
    ("demo", "daemon.cli.first_steps", "Run the whole loop once on this machine, on real parts."),
    ("run", "daemon.cli.servers", "Run the daemon: poll, train, promote and reconcile until it is stopped."),
    ("gateway", "daemon.cli.servers", "Run the OpenAI-compatible gateway that agents talk to."),
    ("once", "daemon.cli.once", "Run one cycle of a target in the foreground."),
    ("status", "daemon.cli.status", "Show each target at a glance: version, cycle, verdict, feedback."),
    ("plan", "daemon.cli.plans", "Show what a cycle would train now, and why, without training."),
    ("estimate", "daemon.cli.plans", "Estimate the memory, time and cost of the next training."),
    ("rates", "daemon.cli.plans", "Test which learning rates suit the base model and the data."),
    ("cycles", "daemon.cli.cycles", "List, show and start cycles: what was learned when, and why not."),
    ("experiments", "daemon.cli.experiments", "List, show and compare trainings and their verdicts."),
    ("adapters", "daemon.cli.adapters", "List, promote and roll back adapter versions."),
    ("approvals", "daemon.cli.approvals", "Review synthetic examples: read, approve, reject."),
    ("data", "daemon.cli.data", "Summarise, export and import training examples."),
    ("operators", "daemon.cli.operators", "Create accounts and tokens for operators."),
    ("phoenix", "daemon.cli.phoenix", "Create API keys of Phoenix for the daemon and the gateway."),
)
"""Name, module and line of help of each command, in the order of `learnd --help`."""


class LearndGroup(LazyGroup):
    """All of `learnd`."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: LazyCommand(name, module, line) for name, module, line in COMMANDS} | {
            **self.commands,
            "work": LazyCommand("work", "daemon.cli.work", "Do the job of a child process.", hidden=True),
        }


app = typer.Typer(
    name="learnd",
    cls=LearndGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def learnd(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Continuous learning for LLM agents: from feedback on traces to a proven adapter in a running vLLM."""


@app.command(cls=QuickCommand)
def version() -> None:
    """Print the version that is installed."""
    from daemon.runtime.version import VERSION

    typer.echo(f"learnd {VERSION}")
