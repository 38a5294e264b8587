"""`learnd data`: the training examples so far, and their exchange with other tools."""

from pathlib import Path
from typing import Annotated

import typer

from daemon.cli.data_audit import audit
from daemon.cli.first_poll import read_first_traffic
from daemon.cli.options import (
    DEFAULT_CONFIG,
    AsJson,
    Config,
    TargetKey,
    choose_target,
    find_actor,
    open_store,
)
from daemon.cli.output import print_facts, print_json, print_line, print_table
from daemon.data.imports import forget_import, import_file, list_imports
from daemon.data.ingest import assemble_snapshot, extract_target
from daemon.runtime.clock import utc_now
from daemon.runtime.context import TargetContext
from daemon.runtime.paths import imports_folder
from daemon.views.data_summary import TargetData
from extractors.cleaning.quality import iterate_kinds
from extractors.dataset.snapshot import KINDS
from extractors.file_formats.jsonl import FileForm
from extractors.file_formats.read_write import write_records

app = typer.Typer(no_args_is_help=True)


def _check_kind(name: str) -> str:
    if name not in KINDS:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(KINDS)}")
    return name


OfKind = Annotated[
    str,
    typer.Option("--kind", "-k", parser=_check_kind, metavar="|".join(KINDS), help="The kind of examples."),
]


@app.command()
def summary(target: TargetKey = None, config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Show the number of examples by kind, the thresholds, drops by reason, and labels that no rule names.

    Polls Phoenix first where nothing was read from it yet.
    """
    with open_store(config) as (settings, store):
        context = TargetContext(settings, choose_target(settings, target), store, utc_now)
        read_first_traffic(context)
        found = TargetData.read(context).summarise()
    if as_json:
        print_json(found)
    else:
        print_facts(found.model_dump() | {"unknown_labels": [str(each) for each in found.unknown_labels]})


app.command()(audit)


@app.command()
def export(
    path: Annotated[Path, typer.Argument(help="The file to write.")],
    kind: OfKind = "sft",
    form: Annotated[
        FileForm | None, typer.Option("--format", help="The file's format; by default its ending decides.")
    ] = None,
    target: TargetKey = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Write the examples on which a cycle would train and validate now to a file."""
    with open_store(config) as (settings, store):
        context = TargetContext(settings, choose_target(settings, target), store, utc_now)
        read_first_traffic(context)
        snapshot = assemble_snapshot(context, extract_target(context.store, context.target))
    examples = [
        example
        for side in (snapshot.train, snapshot.validation)
        for example in dict(iterate_kinds(side))[kind]
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_records(examples, KINDS[kind], path, form)
    if as_json:
        print_json({"path": str(path), "kind": kind, "examples": len(examples)})
    else:
        print_line(f"Wrote {len(examples)} examples to {path}.")


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(help="The file to read.")],
    kind: OfKind = "sft",
    form: Annotated[
        FileForm | None, typer.Option("--format", help="The file's format; by default its ending decides.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="A system prompt for examples that have none.")] = None,
    target: TargetKey = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Add the examples of a file to the training data of the target's next cycles."""
    with open_store(config) as (settings, store):
        found = choose_target(settings, target)
        folder = imports_folder(settings.data_dir, found.key)
        made = import_file(folder, path, kind, form=form, system=system, now=utc_now())
        store.record_act(
            now=utc_now(),
            actor=find_actor(),
            action="import",
            target=found.key,
            subject=made.name,
            detail=f"{made.examples} examples from {path}",
        )
    if as_json:
        print_json(made)
    else:
        plural = "" if made.examples == 1 else "s"
        print_line(f"Imported {made.examples} example{plural} as {made.name}.")


@app.command("imports")
def imports_(target: TargetKey = None, config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """List the imports."""
    with open_store(config) as (settings, _):
        found = list_imports(settings.data_dir, choose_target(settings, target))
    if as_json:
        print_json([each.model_dump() for each in found])
    else:
        rows = [each.model_dump() for each in found]
        print_table(rows, columns=("name", "kind", "examples"), empty="Nothing was imported.")


@app.command()
def forget(
    name: Annotated[str, typer.Argument(help="The import's name, as `learnd data imports` shows it.")],
    target: TargetKey = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Drop an import: the next cycles train without it."""
    with open_store(config) as (settings, store):
        found = choose_target(settings, target)
        forget_import(settings.data_dir, found, name)
        store.record_act(
            now=utc_now(),
            actor=find_actor(),
            action="forget import",
            target=found.key,
            subject=name,
            detail="",
        )
    if as_json:
        print_json({"forgotten": name})
    else:
        print_line(f"Forgot {name}.")
