"""`learnd approvals`: read synthetic examples and decide which of them may train."""

import json
import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from daemon.cli.options import DEFAULT_CONFIG, AsJson, Config, TargetKey, find_actor, open_store
from daemon.cli.output import (
    console,
    print_facts,
    print_json,
    print_line,
    print_table,
    remove_control_characters,
)
from daemon.data.review import BatchReview, Page, ReadItem, ReviewInvalid, Ruling
from daemon.runtime.clock import utc_now
from extractors.errors import LearndError
from registry.batches import Batch, BatchState, ItemState

app = typer.Typer(help="Synthetic examples that wait for you: read, approve, reject.", no_args_is_help=True)
BatchId = Annotated[str, typer.Argument(metavar="BATCH", help="As `learnd approvals list` names it.")]
Numbers = Annotated[
    list[str] | None, typer.Argument(metavar="NUMBERS", help="Items, such as `3 5-9`; or --all.")
]
All = Annotated[bool, typer.Option("--all", help="Every item that it can be done to.")]
As = Annotated[
    str | None,
    typer.Option(
        "--as", envvar="LEARND_OPERATOR", help="Who decides; your user on this machine, if left out."
    ),
]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; it is kept with the item.")]


@app.command("list")
def list_(
    target: TargetKey = None,
    every: Annotated[bool, typer.Option("--all", help="Also those that have ended.")] = False,
    limit: Annotated[int, typer.Option(min=1)] = 100,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """The batches that wait, newest first."""
    with open_store(config) as (settings, store):
        key = settings.target(target).key if target else None
        found = store.batches(key, None if every else BatchState.WAITING, limit)
    if as_json:
        print_json(found)
        return
    rows = [{**batch.model_dump(), "undecided": f"{batch.pending} of {batch.size}"} for batch in found]
    columns = ("id", "target", "kind", *(["state"] if every else []), "undecided", "approved", "expires_at")
    print_table(
        rows,
        columns=columns,
        empty="Nothing waits for you. A cycle asks for examples where a target has too few; --all lists "
        "what was decided.",
    )


@app.command()
def show(
    batch_id: BatchId,
    number: Annotated[int | None, typer.Argument(help="One item, with what it was made from.")] = None,
    state: Annotated[ItemState | None, typer.Option(help="Only items in this state.")] = None,
    after: Annotated[int, typer.Option(help="From the item behind this one on.")] = 0,
    limit: Annotated[int, typer.Option(min=1)] = 20,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """A batch and its items, or one of them beside the approved examples that it was made from."""
    with _open_review(config) as desk:
        batch = desk.store.batch(batch_id)
        if number is None:
            page = desk.page(batch_id, state, after=after, limit=limit)
        else:
            desk.item(batch_id, number)
            page = desk.page(batch_id, after=number - 1, limit=1)
    if as_json:
        print_json({"batch": batch, **page.model_dump(mode="json")})
    elif number is not None:
        _print_item(page)
    else:
        _print_batch(batch, page)


@app.command()
def approve(
    batch_id: BatchId,
    numbers: Numbers = None,
    every: All = False,
    again: Annotated[bool, typer.Option("--again", help="Also what was decided before.")] = False,
    who: As = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Let items train as they stand."""
    _decide(config, batch_id, _parse_numbers(numbers, every), ItemState.APPROVED, who, as_json, again=again)


@app.command()
def reject(
    batch_id: BatchId,
    numbers: Numbers = None,
    every: All = False,
    reason: Reason = "",
    again: Annotated[bool, typer.Option("--again", help="Also what was decided before.")] = False,
    who: As = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Keep items from training; an approval can be revoked so even after its batch has ended."""
    if not reason.strip():
        raise LearndError("why? Say it with --reason; it is kept with the items")
    _decide(
        config,
        batch_id,
        _parse_numbers(numbers, every),
        ItemState.REJECTED,
        who,
        as_json,
        reason=reason,
        again=again,
    )


@app.command()
def undo(
    batch_id: BatchId,
    numbers: Numbers = None,
    every: All = False,
    who: As = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Take decisions back, while the batch waits; an edit goes with its approval."""
    _decide(config, batch_id, _parse_numbers(numbers, every), ItemState.PENDING, who, as_json)


@app.command()
def edit(
    batch_id: BatchId,
    number: int,
    file: Annotated[
        Path | None, typer.Option(help="JSON with the fields that change; your $EDITOR, if left out.")
    ] = None,
    who: As = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Change an item and approve it; what was proposed is kept beside."""
    with _open_review(config) as desk:
        before = desk.page(batch_id, after=desk.item(batch_id, number).number - 1, limit=1).items[0]
        changes = _read_changes(file) if file else _edit_by_hand(before)
        ruling = Ruling(
            number=number, revision=before.revision, state=ItemState.APPROVED, edited=dict(changes)
        )
        decided = desk.decide(batch_id, [ruling], actor=who or find_actor())
        batch = desk.store.batch(batch_id)
    _print_outcome(batch, decided, as_json)


@app.command()
def close(
    batch_id: BatchId,
    reason: Reason = "",
    who: As = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Train on what was approved so far, and on nothing else of the batch."""
    with _open_review(config) as desk:
        _print_outcome(desk.close(batch_id, actor=who or find_actor(), reason=reason), (), as_json)


@app.command()
def withdraw(
    batch_id: BatchId,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why, for the audit log.")],
    who: As = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Train on nothing of the batch, whatever was approved."""
    with _open_review(config) as desk:
        _print_outcome(desk.withdraw(batch_id, actor=who or find_actor(), reason=reason), (), as_json)


@app.command()
def export(
    batch_id: BatchId,
    path: Annotated[Path, typer.Argument(help="JSONL file to write.")],
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Write the items to a file, for review in another tool; `import` reads it again."""
    with _open_review(config) as desk:
        lines = list(desk.export_lines(batch_id))
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".writing-{path.name}")
    aside.write_text("".join(lines), "utf-8", newline="\n")
    aside.replace(path)
    if as_json:
        print_json({"path": str(path), "items": len(lines)})
        return
    words = (
        f"Wrote {len(lines)} items to {path}. Set `state` to APPROVED, or to REJECTED with a `reason`, then: "
    )
    print_line(f"{words}learnd approvals import {batch_id} {path}")


@app.command("import")
def import_(
    batch_id: BatchId,
    path: Annotated[Path, typer.Argument(help="JSONL file that `export` wrote and you reviewed.")],
    who: As = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Decide what a reviewed file says, all of it or nothing."""
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as unreadable:
        raise LearndError(f"{path} cannot be read as UTF-8 text: {unreadable}") from unreadable
    with _open_review(config) as desk:
        try:
            decided = desk.import_lines(batch_id, lines, actor=who or find_actor())
        except ReviewInvalid as wrong:
            raise LearndError(f"{path}: {wrong}") from wrong
        batch = desk.store.batch(batch_id)
    _print_outcome(batch, decided, as_json)


@contextmanager
def _open_review(config: Path) -> Iterator[BatchReview]:
    with open_store(config) as (settings, store):
        yield BatchReview(settings, store, utc_now)


def _decide(
    config: Path,
    batch_id: str,
    numbers: list[int] | None,
    state: ItemState,
    who: str | None,
    as_json: bool,
    *,
    reason: str = "",
    again: bool = False,
) -> None:
    with _open_review(config) as desk:
        decided = desk.decide_numbers(
            batch_id, numbers, state, actor=who or find_actor(), reason=reason, again=again
        )
        batch = desk.store.batch(batch_id)
    _print_outcome(batch, decided, as_json)


def _parse_numbers(words: Sequence[str] | None, every: bool) -> list[int] | None:
    """`3 5-9` as numbers; None for all. Raises LearndError."""
    if every == bool(words):
        raise LearndError("which items? Name them, as in `3 5-9`, or say --all")
    if every:
        return None
    numbers: list[int] = []
    for word in words or ():
        first, _, last = word.partition("-")
        if not first.isdecimal() or not (last or first).isdecimal() or len(word) > 20:
            raise LearndError(f"{word!r} names no items; write a number as 3, or a range as 5-9")
        numbers.extend(range(int(first), int(last or first) + 1))
    return numbers


def _read_changes(file: Path) -> Mapping[str, Any]:
    try:
        return _parse_object(file.read_text("utf-8"))
    except OSError as unreadable:
        raise LearndError(f"{file} cannot be read: {unreadable.strerror}") from unreadable


def _edit_by_hand(item: ReadItem) -> Mapping[str, Any]:
    """What the operator's editor makes of the example. Raises LearndError."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    before = json.dumps(item.example, ensure_ascii=False, indent=2) + "\n"
    with TemporaryDirectory(prefix="learnd-edit-") as folder:
        file = Path(folder) / f"item-{item.number}.json"
        file.write_text(before, "utf-8")
        try:
            subprocess.run([*shlex.split(editor), str(file)], check=True)
        except (OSError, subprocess.CalledProcessError) as failed:
            raise LearndError(f"the editor {editor!r} failed ({failed}): nothing was decided") from failed
        after = file.read_text("utf-8")
    if after == before:
        raise LearndError("nothing was changed, so nothing was decided; `learnd approvals approve` approves")
    return _parse_object(after)


def _parse_object(text: str) -> Mapping[str, Any]:
    try:
        read = json.loads(text)
    except ValueError as wrong:
        raise LearndError(f"that is not JSON ({wrong}): nothing was decided") from wrong
    if not isinstance(read, dict):
        raise LearndError("that is no JSON object of an example's fields: nothing was decided")
    return read


def _print_outcome(batch: Batch, decided: Sequence[ReadItem], as_json: bool) -> None:
    if as_json:
        print_json({"batch": batch, "decided": [item.model_dump(mode="json") for item in decided]})
        return
    words = f"{batch.id} is {batch.state}: {batch.approved} approved, {batch.rejected} rejected, "
    print_line(f"{words}{batch.pending} undecided.")


def _print_batch(batch: Batch, page: Page) -> None:
    facts = batch.model_dump(
        include={"id", "target", "kind", "state", "need", "created_at", "expires_at", "reason"}
    )
    counts = batch.model_dump(include={"pending", "approved", "rejected"})
    print_facts({**facts, "items": counts, "written_by": batch.provenance.model})
    print_line()
    rows = [
        {
            "item": item.number,
            "state": f"{item.state}{' (edited)' if item.edited else ''}",
            "decided_by": item.decided_by,
            **{name: _to_text(value) for name, value in item.example.items()},
        }
        for item in page.items
    ]
    columns = list(dict.fromkeys(name for row in rows for name in row)) or ["item"]
    print_table(rows, columns=columns, empty="No items there.")
    if page.items and page.items[-1].number < batch.size:
        console.print(
            f"\nMore: learnd approvals show {batch.id} --after {page.items[-1].number}", highlight=False
        )


def _print_item(page: Page) -> None:
    (item,) = page.items
    facts = item.model_dump(include={"number", "state", "revision", "reason", "decided_by", "diversity"})
    print_facts(facts | {name: _to_text(value) for name, value in item.example.items()})
    if item.edited:
        console.print("\n[bold]As it was proposed[/]")
        print_facts({name: _to_text(value) for name, value in item.proposed.items()})
    for shown in item.demonstrations:
        print_line("\n[bold]Made from the approved example[/]", shown)
        if shown in page.demonstrations:
            print_facts({name: _to_text(value) for name, value in page.demonstrations[shown].items()})


def _to_text(value: Any) -> str:
    """What a field of an example says, a line a message."""
    if not isinstance(value, list):
        return remove_control_characters(str(value))
    lines = []
    for message in value:
        calls = [call["function"] for call in message.get("tool_calls", ())]
        said = [message.get("content") or "", *(f"{call['name']}({call['arguments']})" for call in calls)]
        lines.append(f"{message.get('role')}: {' '.join(filter(None, said))}")
    return remove_control_characters("\n".join(lines))
