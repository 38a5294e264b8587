"""Markdown that the reference pages share, and docstrings as Markdown."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Sequence
from functools import cache

from pydantic import BaseModel

GENERATED = "<!-- Generated from the code; do not edit. -->\n\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(cell(each) for each in line)} |\n" for line in lines) + "\n"


def cell(text: str) -> str:
    """Return `text` as one cell of a table. A `|` in code stays: Python-Markdown would show the backslash."""
    return re.sub(r"(`[^`]*`)|\|", lambda found: found.group(1) or r"\|", " ".join(text.split()))


def code(text: str) -> str:
    return f"`{text}`"


def prose(docstring: str | None) -> str:
    """Return a docstring as Markdown: HTML in it is text, and indented blocks are code."""
    text = inspect.cleandoc(docstring or "")
    return re.sub(r"(`[^`]*`)|<", lambda found: found.group(1) or "&lt;", text)


def one_line(docstring: str | None) -> str:
    """Return a docstring's text in one line, as far as the first blank line."""
    return " ".join(prose(docstring).split("\n\n")[0].split())


@cache
def field_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstring below each field of `model`, those of its base classes included."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if issubclass(each, BaseModel) and each.__module__.split(".")[0] != "pydantic":
            found |= _docstrings_in(each)
    return found


def _docstrings_in(model: type) -> dict[str, str]:
    body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    assert isinstance(body, ast.ClassDef)  # noqa: S101
    found = {}
    for field, after in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            found[field.target.id] = prose(after.value.value)
    return found
