"""Output of the commands: lines, tables, facts and JSON."""

import json
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Table

DIRECTION_CHANGES = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the direction of the text beside them."""
# Programs that read a pipe want whole lines.
# A path or a label may hold `:warning:`, which stays as it is.
console = Console(width=None if sys.stdout.isatty() else 240, highlight=False, emoji=False)
error_console = Console(stderr=True, highlight=False, emoji=False)


def print_line(text: str = "", style: str | None = None) -> None:
    """Print a line of text as it stands, without control characters and without markup."""
    console.print(remove_control_characters(text), style=style, markup=False)


def print_json(value: Any) -> None:
    """Print values as JSON; pydantic models and times may be among them."""
    # FORCE_COLOR, which many CIs set, must put no colours into what a program reads.
    console.print_json(json.dumps(value, default=_to_json_value), highlight=sys.stdout.isatty())


def print_table(rows: Sequence[Mapping[str, Any]], *, columns: Sequence[str], empty: str) -> None:
    """Print `rows` as a table, or the sentence `empty`, which says what to do next."""
    if not rows:
        print_line(empty)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        # People copy ids: they stay on one line.
        is_id = column in {"id", "run", "target"} or column.endswith("_id")
        table.add_column(column.replace("_", " "), overflow="fold", no_wrap=is_id)
    for row in rows:
        table.add_row(*(escape(_format_cell(row.get(column))) for column in columns))
    console.print(table)


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print each name with its value on a line."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), escape(_format_cell(value)))
    console.print(table)


def print_heading(title: str) -> None:
    """Print an empty line and `title` in bold."""
    console.print(f"\n[bold]{escape(remove_control_characters(title))}[/]")


def remove_control_characters(text: str) -> str:
    """Return `text` without control characters, which could run, hide or reverse things in a terminal."""
    return "".join("�" if _is_control(character) else character for character in text)


def _is_control(character: str) -> bool:
    return character in DIRECTION_CHANGES or (
        unicodedata.category(character) == "Cc" and character not in "\n\t"
    )


def _format_cell(value: Any) -> str:
    match value:
        case None | "":
            return "–"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.3g}"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M UTC}"
        case Mapping():
            pairs = (
                f"{_format_cell(name)} {_format_cell(item)}" for name, item in value.items() if item != {}
            )
            return ", ".join(pairs) or "–"
        case list() | tuple():
            return ", ".join(map(_format_cell, value)) or "–"
        case _:
            return remove_control_characters(str(value))


def _to_json_value(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return value.isoformat() if isinstance(value, date) else str(value)
