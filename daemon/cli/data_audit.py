"""`learnd data audit`: samples of the training examples beside the spans that they were made of."""

from collections.abc import Iterator, Mapping
from itertools import groupby
from textwrap import fill
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from daemon.cli.options import DEFAULT_CONFIG, AsJson, Config, TargetKey, choose_target, open_store
from daemon.cli.output import (
    console,
    print_facts,
    print_heading,
    print_json,
    print_line,
    print_table,
    remove_control_characters,
)
from daemon.runtime.clock import utc_now
from daemon.runtime.context import TargetContext
from daemon.views.data_audit import AuditSample, DataAudit, RecordedSpan, audit_data
from daemon.views.data_summary import KINDS, TargetData
from trainers.planning.plan import ExampleKind

LONGEST = 600
"""Characters of one message that are printed."""
MOST_MESSAGES = 8
"""Messages of a prompt or conversation that are printed: the first and the last ones."""
PATH_WIDTH = 26
"""Columns of the names beside the texts."""


def audit(
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, help="How many examples to show.")] = 20,
    kind: Annotated[
        ExampleKind | None,
        typer.Option("--kind", "-k", metavar="|".join(KINDS), help="Only this kind of examples."),
    ] = None,
    target: TargetKey = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Show samples of what would be trained on beside the spans they were made of, the odd ones first."""
    with open_store(config) as (settings, store):
        context = TargetContext(settings, choose_target(settings, target), store, utc_now)
        found = audit_data(TargetData.read(context), most=samples, kind=kind)
    if as_json:
        print_json(found)
        return
    _print_counts(found)
    for number, sample in enumerate(found.samples, start=1):
        _print_sample(f"{number} of {len(found.samples)}", sample)


def _print_counts(found: DataAudit) -> None:
    if not found.distinct:
        print_line(
            f"{found.target} has no such examples yet: approve, correct or reject more of its traffic."
        )
        return
    print_line(f"{found.target}: {found.odd} of {found.distinct} examples look odd.")
    rows = [{"examples": count, "why": reason} for reason, count in found.oddities.items()]
    if rows:
        print_table(rows, columns=("examples", "why"), empty="")


def _print_sample(number: str, sample: AuditSample) -> None:
    print_heading(f"{number}: {', '.join(sample.kinds)}; {sample.verdict}; {sample.split}")
    for oddity in sample.oddities:
        print_line(f"! {oddity}", "yellow")
    _print_fields(_list_said(sample.example))
    for span in sample.recorded:
        _print_recorded(span)
    for missing in sample.missing:
        print_facts({"not in the mirror": missing.url})


def _print_recorded(span: RecordedSpan) -> None:
    print_line("As recorded", "bold")
    print_line(span.url, "dim")
    _print_fields(_list_recorded(span))
    if span.omitted:
        print_line(f"({span.omitted} more attributes are not shown)", "dim")


def _print_fields(fields: Iterator[tuple[str, str]]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="cyan", max_width=PATH_WIDTH, overflow="fold")
    table.add_column(overflow="fold", ratio=1)
    for name, value in fields:
        table.add_row(escape(remove_control_characters(name)), escape(remove_control_characters(value)))
    console.print(table)


def _list_recorded(span: RecordedSpan) -> Iterator[tuple[str, str]]:
    """Yield each attribute that holds the conversation, and below it what it holds."""
    for root, fields in groupby(span.fields, key=lambda field: field.root):
        for at, field in enumerate(fields):
            if field.path and not at:
                yield root, ""
            yield (_wrap_path(field.path) if field.path else root), field.value


def _wrap_path(path: str) -> str:
    """Return the path with an indent, its lines broken behind dots."""
    wrapped = fill(path.replace(".", ". "), PATH_WIDTH, initial_indent="  ", subsequent_indent="    ")
    return wrapped.replace(". ", ".")


def _list_said(example: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield who says what, thoughts and calls apart, and the other fields of an example's line."""
    for name, value in example.items():
        if name == "tools":
            continue
        if not isinstance(value, list):
            yield name, _shorten(str(value))
            continue
        answers = name not in {"prompt", "messages"}
        gap = max(len(value) - MOST_MESSAGES, 0)
        for at, message in enumerate(value):
            if gap and at == 1:
                yield "…", f"({gap} more messages)"
            if not 1 <= at < 1 + gap:
                yield from _list_parts(message, name if answers else str(message["role"]))


def _list_parts(message: Mapping[str, Any], author: str) -> Iterator[tuple[str, str]]:
    if message.get("reasoning_content"):
        yield f"{author}, thoughts", _shorten(str(message["reasoning_content"]))
    if message.get("content") or not message.get("tool_calls"):
        yield author, _shorten(str(message.get("content") or ""))
    for call in message.get("tool_calls") or ():
        function = call["function"]
        yield f"{author} calls", _shorten(f"{function['name']}({function['arguments']})")


def _shorten(text: str) -> str:
    half = LONGEST // 2
    if len(text) <= LONGEST:
        return text
    return f"{text[:half]} … ({len(text) - LONGEST} characters) … {text[-half:]}"
