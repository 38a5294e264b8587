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
    print_facts,
    print_heading,
    print_json,
    print_line,
    print_table,
    remove_control_characters,
)
from daemon.data.review import BatchReview, ItemPage, ItemView, ReviewInvalid, Ruling
from daemon.runtime.clock import utc_now
from extractors.errors import LearndError
from registry.batches import Batch, BatchState, ItemState

app = typer.Typer(no_args_is_help=True)
MOST_REVIEW_BYTES = 2**26
"""Size of a reviewed file: as large as the daemon's API takes it."""
BatchId = Annotated[
    str, typer.Argument(metavar="BATCH", help="The batch's id, as `learnd approvals list` shows it.")
]
Numbers = Annotated[
    list[str] | None,
    typer.Argument(metavar="NUMBERS", help="The items' numbers, such as `3 5-9`. Use --all for every item."),
]
All = Annotated[bool, typer.Option("--all", help="Every item to which this can be done.")]
As = Annotated[
    str | None,
    typer.Option(
        "--as", envvar="LEARND_OPERATOR", help="The person who decides; by default your user on this machine."
    ),
]
Again = Annotated[bool, typer.Option("--again", help="Change items that were decided before, too.")]
Reason = Annotated[str, typer.Option("--reason", "-r", help="The reason, which is kept.")]


@app.command("list")
def list_(
    target: TargetKey = None,
    every: Annotated[bool, typer.Option("--all", help="List batches that have ended, too.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many batches to list at most.")] = 100,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """List the batches that wait for a decision, newest first."""
    with open_store(config) as (settings, store):
        key = settings.find_target(target).key if target else None
        found = store.batches(key, None if every else BatchState.WAITING, limit)
    if as_json:
        print_json(found)
        return
    rows = [{**batch.model_dump(), "undecided": f"{batch.pending} of {batch.size}"} for batch in found]
    columns = ("id", "target", "kind", *(["state"] if every else []), "undecided", "approved", "expires_at")
    print_table(
        rows,
        columns=columns,
        empty="There are no batches. A cycle asks for examples where a target has too few."
        if every
        else "Nothing waits for you. A cycle asks for examples where a target has too few; --all lists "
        "what was decided.",
    )


@app.command()
def show(
    batch_id: BatchId,
    number: Annotated[
        int | None, typer.Argument(help="Show one item, with the examples that it was made from.")
    ] = None,
    state: Annotated[ItemState | None, typer.Option(help="Show only items in this state.")] = None,
    after: Annotated[int, typer.Option(help="Begin after the item with this number.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="How many items to show at most.")] = 20,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Show a batch and its items, or one item beside the approved examples that it was made from."""
    with _open_review(config) as review:
        batch = review.store.batch(batch_id)
        if number is None:
            page = review.read_page(batch_id, state, after=after, limit=limit)
        else:
            review.find_item(batch_id, number)
            page = review.read_page(batch_id, after=number - 1, limit=1)
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
    again: Again = False,
    who: As = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Approve items: the next training uses them as they are."""
    chosen = _parse_numbers(numbers, every)
    with _open_review(config) as review:
        decided = review.decide_numbers(
            batch_id, chosen, ItemState.APPROVED, actor=who or find_actor(), again=again
        )
        _print_outcome(review.store.batch(batch_id), decided, as_json)


@app.command()
def reject(
    batch_id: BatchId,
    numbers: Numbers = None,
    every: All = False,
    reason: Reason = "",
    again: Again = False,
    who: As = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Reject items: no training uses them.

    This also revokes an approval, even after the batch has ended.
    """
    if not reason.strip():
        raise LearndError("why? Say it with --reason, which is kept with the items")
    chosen = _parse_numbers(numbers, every)
    with _open_review(config) as review:
        decided = review.decide_numbers(
            batch_id, chosen, ItemState.REJECTED, actor=who or find_actor(), reason=reason, again=again
        )
        _print_outcome(review.store.batch(batch_id), decided, as_json)


@app.command()
def undo(
    batch_id: BatchId,
    numbers: Numbers = None,
    every: All = False,
    who: As = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Take decisions back while the batch waits; an item's edit is dropped with its approval."""
    chosen = _parse_numbers(numbers, every)
    with _open_review(config) as review:
        decided = review.decide_numbers(batch_id, chosen, ItemState.PENDING, actor=who or find_actor())
        _print_outcome(review.store.batch(batch_id), decided, as_json)


@app.command()
def edit(
    batch_id: BatchId,
    number: Annotated[int, typer.Argument(help="The item's number.")],
    file: Annotated[
        Path | None,
        typer.Option(help="JSON file with the fields that change; by default your $EDITOR opens."),
    ] = None,
    who: As = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Change an item and approve it; the proposed text is kept beside it."""
    with _open_review(config) as review:
        before = review.read_page(
            batch_id, after=review.find_item(batch_id, number).number - 1, limit=1
        ).items[0]
        changes = _read_changes(file) if file else _edit_by_hand(before)
        ruling = Ruling(
            number=number, revision=before.revision, state=ItemState.APPROVED, edited=dict(changes)
        )
        decided = review.decide(batch_id, [ruling], actor=who or find_actor())
        batch = review.store.batch(batch_id)
    _print_outcome(batch, decided, as_json)


@app.command()
def close(
    batch_id: BatchId,
    reason: Reason = "",
    who: As = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """End a batch: training uses what was approved so far, and nothing else of it."""
    with _open_review(config) as review:
        _print_outcome(review.close(batch_id, actor=who or find_actor(), reason=reason), (), as_json)


@app.command()
def withdraw(
    batch_id: BatchId,
    reason: Annotated[str, typer.Option("--reason", "-r", help="The reason, for the audit log.")],
    who: As = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Withdraw a batch: training uses nothing of it, not even what was approved."""
    with _open_review(config) as review:
        _print_outcome(review.withdraw(batch_id, actor=who or find_actor(), reason=reason), (), as_json)


@app.command()
def export(
    batch_id: BatchId,
    path: Annotated[Path, typer.Argument(help="The JSONL file to write.")],
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Write the items to a file, to review them in another tool; `import` reads it again."""
    with _open_review(config) as review:
        lines = list(review.export_lines(batch_id))
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
    path: Annotated[Path, typer.Argument(help="The JSONL file that `export` wrote and you reviewed.")],
    who: As = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Apply the decisions in a reviewed file, all of them or none."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_REVIEW_BYTES + 1)
        if len(content) > MOST_REVIEW_BYTES:
            raise LearndError(f"{path} has more than {MOST_REVIEW_BYTES >> 20} MiB: that is no batch")
        lines = content.decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    except (OSError, UnicodeDecodeError) as unreadable:
        raise LearndError(f"{path} cannot be read as UTF-8 text: {unreadable}") from unreadable
    with _open_review(config) as review:
        try:
            decided = review.import_lines(batch_id, lines, actor=who or find_actor())
        except ReviewInvalid as wrong:
            raise LearndError(f"{path}: {wrong}") from wrong
        batch = review.store.batch(batch_id)
    _print_outcome(batch, decided, as_json)


@contextmanager
def _open_review(config: Path) -> Iterator[BatchReview]:
    """Open the store for decisions on batches."""
    with open_store(config) as (settings, store):
        yield BatchReview(settings, store, utc_now)


def _parse_numbers(words: Sequence[str] | None, every: bool) -> list[int] | None:
    """Return the numbers that `3 5-9` names, or None for all. Raises LearndError."""
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


def _edit_by_hand(item: ItemView) -> Mapping[str, Any]:
    """Open the example in the operator's editor, and return the changed fields. Raises LearndError."""
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


def _print_outcome(batch: Batch, decided: Sequence[ItemView], as_json: bool) -> None:
    if as_json:
        print_json({"batch": batch, "decided": [item.model_dump(mode="json") for item in decided]})
        return
    words = f"{batch.id} is {batch.state}: {batch.approved} approved, {batch.rejected} rejected, "
    print_line(f"{words}{batch.pending} undecided.")


def _print_batch(batch: Batch, page: ItemPage) -> None:
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
        print_line(f"\nMore: learnd approvals show {batch.id} --after {page.items[-1].number}")


def _print_item(page: ItemPage) -> None:
    (item,) = page.items
    facts = item.model_dump(include={"number", "state", "revision", "reason", "decided_by", "diversity"})
    print_facts(facts | {name: _to_text(value) for name, value in item.example.items()})
    if item.edited:
        print_heading("As it was proposed")
        print_facts({name: _to_text(value) for name, value in item.proposed.items()})
    for shown in item.demonstrations:
        print_heading(f"Made from the approved example {shown}")
        if shown in page.demonstrations:
            print_facts({name: _to_text(value) for name, value in page.demonstrations[shown].items()})


def _to_text(value: Any) -> str:
    """Return a field of an example as text, with a line for each message."""
    if not isinstance(value, list):
        return remove_control_characters(str(value))
    lines = []
    for message in value:
        calls = [call["function"] for call in message.get("tool_calls", ())]
        said = [message.get("content") or "", *(f"{call['name']}({call['arguments']})" for call in calls)]
        lines.append(f"{message.get('role')}: {' '.join(filter(None, said))}")
    return remove_control_characters("\n".join(lines))
