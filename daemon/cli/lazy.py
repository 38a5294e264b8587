"""Commands whose modules are imported only when they run, so that `learnd --help` answers at once.

A module in `daemon/cli` holds a Typer application called `app`. A `LazyCommand` knows its name and its
line of help; it imports the module when the command runs, when its own help is asked for, and when a shell
completes its options.
"""

from importlib import import_module
from types import ModuleType
from typing import Any

from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from extractors.errors import LearndError
from trainers.quick_imports import quick_imports

OURS = frozenset({"daemon", "evaluation", "extractors", "registry", "trainers"})
"""Packages whose absence is a fault of ours."""


class LibraryMissing(LearndError):
    """A command needs a library that is not installed."""


class QuickCommand(TyperCommand):
    """A command whose flags are read without pydantic."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _default_flags_to_false(self, ctx)
        return super().parse_args(ctx, args)


class LazyCommand(TyperCommand):
    """A command, or a group of commands, that stands for itself in listings until it is loaded."""

    def __init__(self, name: str, module: str, help: str, *, hidden: bool = False) -> None:  # noqa: A002
        """`module` has an `app` with a command called `name`; where it has none, all of it is the group."""
        super().__init__(name, help=help, hidden=hidden)
        self._module = module

    def load(self) -> TyperCommand | TyperGroup:
        """Import the module and return the command itself, under the name and the help it is listed by."""
        group = get_group(self._import_module().app)
        command: Any = group.commands.get(str(self.name), group)
        command.name, command.help, command.hidden = self.name, command.help or self.help, self.hidden
        return command  # type: ignore[no-any-return]

    def _import_module(self) -> ModuleType:
        try:
            with quick_imports():
                return import_module(self._module)
        except ModuleNotFoundError as missing:
            if missing.name is None or missing.name.split(".")[0] in OURS:
                raise
            raise LibraryMissing(
                f"`learnd {self.name}` needs `{missing.name}`, which is not installed; "
                "install it with: pip install 'learnd[daemon]'"
            ) from missing


class LazyGroup(TyperGroup):
    """A group that loads the one command that is wanted, and reads its own flags without pydantic."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _default_flags_to_false(self, ctx)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, LazyCommand) else command, rest

    def load_all(self) -> None:
        """Put the commands themselves in the place of those that were not loaded yet."""
        for name, command in self.commands.items():
            if isinstance(command, LazyCommand):
                self.commands[name] = command.load()


def _default_flags_to_false(command: TyperCommand | TyperGroup, ctx: Any) -> None:
    """Give Typer's own flags a default: without one it loads pydantic to find that None is no flag."""
    for parameter in command.get_params(ctx):
        if parameter.default is None:
            parameter.default = False
