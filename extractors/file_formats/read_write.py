"""Reads and writes files of examples, for other tools and from them.

jsonl             one object a line, for TRL and sentence-transformers (`extractors.file_formats.jsonl`)
parquet           the columns of `extractors.file_formats.parquet`
chat, instruction, classification      JSONL of SFT examples as other tools write them

Files are read back without loss. sentence-transformers trains on every column of a data set: hand
it `select_columns(["anchor", "positive", "negative"])`.
"""

import json
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from extractors.errors import LearndError
from extractors.file_formats.jsonl import (
    KIND_NAMES,
    FileForm,
    LineInvalid,
    NotExpressible,
    check_form,
    check_record,
    describe_error,
    from_line,
    to_line,
)
from extractors.file_formats.parquet import (
    MOST_COLUMN_BYTES,
    SCHEMAS,
    ColumnTooLarge,
    from_row,
    read_rows,
    write_columns,
)
from extractors.values import Record, Value

MOST_PROBLEMS = 20
"""Problems of a file that its error lists."""
MOST_LINE_BYTES = 2**24
"""Size of one line, and so of one example: about four million tokens."""
MOST_ARRAY_BYTES = 2**26
"""Size of a file that is one JSON array, which cannot be read by pieces."""
_HEAD = 64


class ImportInvalid(LearndError):
    """A file cannot be imported; none of its items was."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        more = len(problems) - MOST_PROBLEMS
        listed = [*problems[:MOST_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]
        super().__init__(f"nothing was imported from {path}: {'; '.join(listed)}")
        self.path = path
        self.problems = tuple(problems)


class FormUnknown(LearndError):
    """A file's ending names a form in which examples are neither written nor read."""


FOREIGN_ENDINGS = frozenset({".csv", ".tsv", ".xls", ".xlsx", ".arrow", ".feather"})


def infer_form(path: Path) -> FileForm:
    """Return the form that a file's ending means: Parquet for `.parquet`, else JSONL. Raises FormUnknown."""
    if path.suffix.lower() in FOREIGN_ENDINGS:
        raise FormUnknown(
            f"{path.name}: examples are not kept as {path.suffix}; let the name end in .jsonl or .parquet, "
            "or choose a form with --format"
        )
    return FileForm.PARQUET if path.suffix == ".parquet" else FileForm.JSONL


def write_records(
    records: Iterable[Record], kind: type[Record], path: Path, form: FileForm | None = None
) -> int:
    """Write examples and return how many; the file appears whole or not at all.

    Without a form the file's ending decides. Raises FormUnknown, and NotExpressible, with the item's index,
    where the form would lose something: tool calls in an instruction, a conversation in a classification.
    """
    form = form or infer_form(path)
    records = list(records)
    aside = path.with_name(f".writing-{path.name}")
    try:
        if form is FileForm.PARQUET:
            write_columns(records, kind, aside)
        else:
            check_form(kind, form)
            with aside.open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(_format_lines(records, form))
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return len(records)


def _format_lines(records: Iterable[Value], form: FileForm) -> Iterator[str]:
    for index, record in enumerate(records):
        try:
            yield json.dumps(to_line(record, form), ensure_ascii=False) + "\n"
        except NotExpressible as lost:
            raise NotExpressible(f"item {index}: {lost}") from None


def read_records(
    kind: type[Record],
    path: Path,
    form: FileForm | None = None,
    *,
    now: datetime,
    system: str | None = None,
) -> tuple[Record, ...]:
    """Read the records of a file in their order, equal to those that `write_records` was given.

    Files of other tools need only the fields of their form, and may be one JSON array. `system` stands
    in for a missing system prompt, `now` for a missing time. Raises ImportInvalid, with index (from 0) and
    line of each item that has a problem, and for a file without items.
    """
    form = form or infer_form(path)
    records: list[Record] = []
    problems: list[str] = []
    for where, item in _read_rows(kind, path) if form is FileForm.PARQUET else _read_items(path):
        try:
            if isinstance(item, LineInvalid):
                raise item
            if form is FileForm.PARQUET:
                records.append(check_record(from_row(kind, item)))
            else:
                records.append(from_line(kind, item, form, now=now, system=system))
        except ValidationError as wrong:
            problems.append(f"{where}: {describe_error(wrong)}")
        except (LineInvalid, ValueError) as wrong:
            problems.append(f"{where}: {wrong}")
    if problems:
        raise ImportInvalid(path, problems)
    if not records and form is not FileForm.PARQUET:
        raise ImportInvalid(path, ["it is empty"])
    return tuple(records)


def _read_rows(kind: type[Value], path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the rows of a Parquet file, each with its position in words."""
    try:
        names = set(pq.read_schema(path).names)
        missing = [name for name in SCHEMAS[kind].names if name not in names]
        if missing:
            alike = [other for other in KIND_NAMES if set(SCHEMAS[other].names) <= names]
            # Every file of votes also has the columns of SFT examples.
            closest = max(alike, key=lambda other: len(SCHEMAS[other].names), default=None)
            hint = f"; this looks like {KIND_NAMES[closest]}" if closest else ""
            raise ImportInvalid(
                path, [f"its columns are not those of {KIND_NAMES[kind]}: no {missing}{hint}"]
            )
        for index, row in enumerate(read_rows(kind, path, MOST_COLUMN_BYTES)):
            yield f"item {index}", row
    except ColumnTooLarge as large:
        raise ImportInvalid(path, [str(large)]) from None
    except (OSError, pa.ArrowException) as unreadable:
        raise ImportInvalid(path, [f"it cannot be read as Parquet ({unreadable})"]) from unreadable


def _read_items(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the JSON values of a file, each with its position in words; LineInvalid for invalid JSON."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD).removeprefix(BOM_UTF8).lstrip()
            file.seek(0)
            if head.startswith(b"PAR1"):
                raise ImportInvalid(path, [f"it is a Parquet file; read it as {FileForm.PARQUET.value!r}"])
            yield from _read_array(path, file) if head.startswith(b"[") else _read_lines(path, file)
    except OSError as unreadable:
        raise ImportInvalid(path, [f"it cannot be read ({unreadable})"]) from unreadable


def _read_array(path: Path, file: BinaryIO) -> Iterator[tuple[str, Any]]:
    content = file.read(MOST_ARRAY_BYTES + 1)
    if len(content) > MOST_ARRAY_BYTES:
        reason = (
            f"it is a JSON array of more than {MOST_ARRAY_BYTES >> 20} MiB; write one object a line instead"
        )
        raise ImportInvalid(path, [reason])
    items = _parse(_decode(path, content, "the file"))
    if isinstance(items, LineInvalid):
        raise ImportInvalid(path, [f"it begins as a JSON array, but {items}"])
    for index, item in enumerate(items):
        yield f"item {index}", item


def _read_lines(path: Path, file: BinaryIO) -> Iterator[tuple[str, Any]]:
    index = 0
    for number, line in enumerate(iter(lambda: file.readline(MOST_LINE_BYTES + 1), b""), 1):
        if len(line) > MOST_LINE_BYTES:
            reason = f"line {number} has more than {MOST_LINE_BYTES >> 20} MiB; an example is one line"
            raise ImportInvalid(path, [reason])
        text = _decode(path, line, f"line {number}")
        if text.strip():
            yield f"item {index} (line {number})", _parse(text.rstrip())
            index += 1


def _decode(path: Path, content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        byte = content[error.start]
        reason = f"{where} is not UTF-8 (byte 0x{byte:02x} at {error.start}); save it as UTF-8"
        raise ImportInvalid(path, [reason]) from None


def _parse(text: str) -> Any:
    """Return the JSON value; LineInvalid (not raised) where it is none, or none that can be stored."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
        if "\\u" in text:
            # An escape can spell half a character, which no file can hold.
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        return LineInvalid(f"it is not JSON ({error.msg} at column {error.colno})")
    except UnicodeEncodeError:
        return LineInvalid("it holds text that is not valid Unicode (half of a surrogate pair)")
    except (ValueError, RecursionError) as error:
        return LineInvalid(f"it is not JSON that can be read ({error})")
    return value


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")
