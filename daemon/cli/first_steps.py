"""The first commands that a newcomer runs: `init`, `doctor` and `demo`."""

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.text import Text

from daemon.cli.options import DEFAULT_CONFIG, AsJson, Config
from daemon.cli.output import console, error_console, print_json, print_line, remove_control_characters
from daemon.cli.progress import show_progress
from daemon.runtime.optional_deps import require_extra
from daemon.settings.load import load_settings
from extractors.errors import LearndError
from registry.serving.inspection import Check

app = typer.Typer()


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = DEFAULT_CONFIG,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a settings file with comments."""
    if path.exists() and not force:
        raise LearndError(f"{path} is there already: edit it, or overwrite it with --force")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(files("daemon").joinpath("learnd.example.toml").read_text("utf-8"), "utf-8")
    option = "" if path == DEFAULT_CONFIG else f" --config {path}"
    print_line(f"Wrote {path}. Name your project, model and vLLM in it, then run: learnd doctor{option}")


@app.command()
def doctor(config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Check everything that the settings name.

    Reports each check as it ends, and exits with 1 where one fails.
    """
    from daemon.doctor import examine

    settings, checks = load_settings(config), list[Check]()
    # On the console on which the checks are printed: rich keeps the two apart.
    with (error_console if as_json else console).status("") as running:

        def show_running(name: str) -> None:
            running.update(escape(f"checking: {remove_control_characters(name)}"))

        for check in examine(settings, on_start=show_running):
            checks.append(check)
            if not as_json:
                _print_check(check)
    if as_json:
        print_json(checks)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


def _print_check(check: Check) -> None:
    result = ("ok  ", "green") if check.ok else ("FAIL", "red")
    name, found = remove_control_characters(check.name), remove_control_characters(check.found)
    console.print(Text.assemble(result, " ", (name, "bold"), f": {found}"))
    if not check.ok:
        print_line(f"     → {check.what_to_do}")


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="The folder for everything that the demo writes.")] = Path(
        ".demo"
    ),
    corpus: Annotated[
        Path | None,
        typer.Option(
            envvar="DEMO_CORPUS", help='Requests of your own: a file with lines `{"text": …, "label": …}`.'
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option(help="Leave the servers and the console running until Ctrl-C, to explore.")
    ] = False,
    vllm_python: Annotated[
        Path, typer.Option(envvar="LEARND_VLLM_PYTHON", help="Python of the environment that has vLLM.")
    ] = Path(".venv-vllm/bin/python"),
) -> None:
    """Run the whole loop once on this machine, on real parts.

    Phoenix, feedback, a training, a verdict, and a swap of the adapter under traffic.
    """
    require_extra("train", "torch", "trl", "peft")
    require_extra("phoenix", "phoenix")
    from daemon.demo.demo import run_demo

    run_demo(folder, corpus=corpus, keep=keep, vllm_python=vllm_python, show_progress=show_progress)
