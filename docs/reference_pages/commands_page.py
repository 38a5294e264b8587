"""Every command of `learnd`, read from the command line itself."""

from collections.abc import Iterator
from typing import Any

import typer

from daemon.cli.commands import app
from reference_pages.markdown import GENERATED, code, prose, table

INTRO = """# Commands

`learnd --help` and `learnd COMMAND --help` say the same in a terminal.

- Every command has `--json`, except {without_json}.
- `--config`, or `LEARND_CONFIG`, names another settings file than `./learnd.toml`.
- `--target` may be left out where the settings have only one target.
- A command that fails says why on standard error, and exits with 1; one that is misspelt exits with 2.

"""


def commands_page() -> str:
    """Return the page as Markdown."""
    root: Any = typer.main.get_command(app)
    shown = [name for name, command in root.commands.items() if not command.hidden]
    root.load_all()
    root.commands = {name: root.commands[name] for name in shown}
    without_json = ", ".join(code(path) for path in _find_without_json(root, "learnd"))
    return GENERATED + INTRO.replace("{without_json}", without_json) + "".join(_describe(root, "learnd"))


def _find_without_json(command: Any, path: str) -> Iterator[str]:
    """The commands that print no JSON."""
    below = getattr(command, "commands", {})
    for name, each in below.items():
        yield from _find_without_json(each, f"{path} {name}")
    if not below and not any("--json" in parameter.opts for parameter in command.params):
        yield path


def _describe(command: Any, path: str) -> Iterator[str]:
    """A command, and those below it. `command` is one of click's, which Typer brings along."""
    if command.hidden:
        return
    anchor = path.replace(" ", "-")
    level = "#" * min(4, 1 + len(path.split()))
    yield f"{level} {code(path)} {{ #{anchor} }}\n\n{prose(command.help)}\n\n"
    context = command.make_context(path, [], resilient_parsing=True)
    below = command.list_commands(context) if hasattr(command, "list_commands") else []
    if not below:
        yield f"```sh\n{' '.join([path, *command.collect_usage_pieces(context)])}\n```\n\n"
    records = [each.get_help_record(context) for each in command.params if not _is_shells(each)]
    if records:
        yield table(("argument or option", "meaning"), [(code(name), said) for name, said in records])
    for name in below:
        yield from _describe(command.get_command(context, name), f"{path} {name}")


def _is_shells(parameter: Any) -> bool:
    """Options that Typer adds for a shell's completion."""
    return bool({"--install-completion", "--show-completion"} & set(parameter.opts))
