"""What the commands share: options, opening the settings and the store, and printing."""

import getpass
import json
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from daemon.runtime.clock import utc_now
from daemon.settings.load import Settings, load_settings
from daemon.settings.target import TargetSettings
from extractors.errors import LearndError
from registry.store.store import Store

Config = Annotated[
    Path, typer.Option("--config", "-c", envvar="LEARND_CONFIG", help="Settings file.", show_default=True)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="Id, the beginning of one, or a version.")]
TargetKey = Annotated[
    str | None,
    typer.Option("--target", "-t", metavar="TENANT/AGENT", help="May be left out where there is only one."),
]
DEFAULT_CONFIG = Path("learnd.toml")
TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the direction of what stands beside them."""
# Whoever reads it from a pipe wants whole lines.
out = Console(width=None if sys.stdout.isatty() else 240)
progress_out = Console(stderr=True)


@contextmanager
def opened(config: Path) -> Iterator[tuple[Settings, Store]]:
    """The settings and the store they name. Raises SettingsError."""
    settings = load_settings(config)
    store = Store.open(settings.data_dir, utc_now())
    try:
        yield settings, store
    finally:
        store.close()


def the_target(settings: Settings, key: str | None) -> TargetSettings:
    """The target named `key`, or the only one there is. Raises LearndError where that is not clear."""
    if key is not None:
        return settings.target(key)
    if len(settings.targets) != 1:
        known = ", ".join(target.key for target in settings.targets) or "none"
        raise LearndError(f"which target? Name one with --target (there are: {known})")
    return settings.targets[0]


def actor() -> str:
    """Who acts, for the audit log: the user of this machine who runs the command."""
    return getpass.getuser()


def print_json(value: Any) -> None:
    """Print values, models among them, as JSON on stdout."""
    out.print_json(json.dumps(value, default=_plain))


def print_table(rows: Sequence[Mapping[str, Any]], *, columns: Sequence[str], empty: str) -> None:
    """A table of `rows`, or the sentence `empty`, which tells what to do next."""
    if not rows:
        out.print(empty, highlight=False)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        # Ids are there to be copied.
        is_id = column in {"id", "run", "target"} or column.endswith("_id")
        table.add_column(column.replace("_", " "), overflow="fold", no_wrap=is_id)
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    out.print(table)


def print_facts(facts: Mapping[str, Any]) -> None:
    """Name and value, a line each."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), _cell(value))
    out.print(table)


def plain(text: str) -> str:
    """`text` without control characters: in a terminal they could do, hide or turn round anything."""
    return "".join(
        "�" if (unicodedata.category(char) == "Cc" and char not in "\n\t") or char in TURNING else char
        for char in text
    )


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{escape(plain(str(name)))} {_cell(item)}" for name, item in value.items())
    return escape(value.strftime("%Y-%m-%d %H:%M UTC") if hasattr(value, "strftime") else plain(str(value)))


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return str(value)
