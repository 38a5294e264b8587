"""Training examples that operators import from files, beside those of the traffic.

<data_dir>/imports/<target>/<kind>-<digest>.parquet
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from daemon.runtime.paths import imports_folder
from daemon.settings.target import TargetSettings
from extractors.cleaning.quality import check_examples
from extractors.cleaning.redaction import Redaction, load_redactor
from extractors.dataset.snapshot import KINDS
from extractors.errors import LearndError
from extractors.examples.types import Examples, SFTExample
from extractors.file_formats.jsonl import FileForm
from extractors.file_formats.parquet import ColumnsDamaged, read_columns
from extractors.file_formats.read_write import read_records, write_records
from extractors.values import Value, content_id

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class UnknownImport(LearndError):
    """No import has this name."""


class ImportDamaged(LearndError):
    """The file that holds an import cannot be read any more."""


class Imported(Value):
    """A file that was imported."""

    name: str
    kind: str
    """The field of `Examples` that holds its examples."""
    examples: int


def import_file(
    folder: Path,
    path: Path,
    kind: str,
    *,
    form: FileForm | None,
    system: str | None,
    now: datetime,
) -> Imported:
    """Copy the examples of the file `path` into a target's imports `folder`, for its next cycles.

    Importing the same file again changes nothing. Raises ImportInvalid and ExamplesInvalid, which say
    what is wrong with which item; then nothing was imported.
    """
    records = read_records(KINDS[kind], path, form, now=now, system=system)
    examples = Examples.model_validate({kind: records})
    check_examples(examples)
    name = f"{kind}-{content_id([example.id for example in getattr(examples, kind)])[:12]}"
    kept = folder / f"{name}.parquet"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_records(getattr(examples, kind), KINDS[kind], kept, FileForm.PARQUET)
    return Imported(name=name, kind=kind, examples=len(records))


def list_imports(data_dir: Path, target: TargetSettings) -> list[Imported]:
    """Return the target's imports, by kind and name. Raises ImportDamaged."""
    return [
        Imported(name=path.stem, kind=kind, examples=len(_read_import(kind, path)))
        for kind, path in _files(data_dir, target)
    ]


def forget_import(data_dir: Path, target: TargetSettings, name: str) -> None:
    """Remove an import, so that the next cycles train without it. Raises UnknownImport."""
    known = {path.stem: path for _, path in _files(data_dir, target)}
    if name not in known:
        raise UnknownImport(f"no import {name!r} of {target.key} (there are: {', '.join(known) or 'none'})")
    known[name].unlink()


def read_imported_examples(data_dir: Path, target: TargetSettings) -> Examples:
    """Return all examples that were imported for the target, each once. Raises ImportDamaged."""
    found: dict[str, dict[str, Value]] = {}
    for kind, path in _files(data_dir, target):
        for example in _read_import(kind, path):
            found.setdefault(kind, {})[getattr(example, "id")] = example  # noqa: B009 - every kind has one
    return Examples.model_validate({kind: tuple(each.values()) for kind, each in found.items()})


def read_golden_cases(target: TargetSettings) -> tuple[SFTExample, ...]:
    """Read the target's golden cases from its JSONL file.

    Personal data is replaced in them as in the examples, or else examples like them would not be
    recognised. Raises ImportInvalid, RedactorUnusable, RedactionFailed.
    """
    if target.golden is None:
        return ()
    # Golden cases have no time, and none is needed.
    cases = read_records(SFTExample, target.golden, FileForm.JSONL, now=EPOCH)
    return Redaction(load_redactor(target.redaction), target.output_space).apply(cases)


def _read_import(kind: str, path: Path) -> tuple[Value, ...]:
    try:
        return read_columns(KINDS[kind], path)
    except ColumnsDamaged as damaged:
        raise ImportDamaged(
            f"{damaged}; `learnd data forget {path.stem}` drops this import, or restore its file"
        ) from damaged


def _files(data_dir: Path, target: TargetSettings) -> Iterator[tuple[str, Path]]:
    """Yield kinds and files. A file that a killed process has left half written has another name."""
    for kind in KINDS:
        for path in sorted(imports_folder(data_dir, target.key).glob(f"{kind}-*.parquet")):
            yield kind, path
