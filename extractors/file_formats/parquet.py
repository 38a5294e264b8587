"""Examples of every kind and reviewed traffic as Parquet columns, and back without loss.

Messages are nested columns that any Parquet reader shows; tools, whose JSON schema can be of
any shape, are JSON text. The schema is fixed: it does not depend on the data.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from extractors.errors import LearndError
from extractors.examples.types import (
    PreferencePair,
    ReviewedItem,
    ReviewedRetrieval,
    SFTExample,
    Trajectory,
    Triplet,
    UnpairedPreference,
)
from extractors.values import Record, Value

TEXTS = pa.list_(pa.string())
TOOL_CALL = pa.struct([("id", pa.string()), ("name", pa.string()), ("arguments", pa.string())])
MESSAGE = pa.struct(
    [
        ("role", pa.string()),
        ("content", pa.string()),
        ("tool_calls", pa.list_(TOOL_CALL)),
        ("tool_call_id", pa.string()),
        ("name", pa.string()),
        ("reasoning", pa.string()),
    ]
)
DOCUMENT = pa.struct([("id", pa.string()), ("text", pa.string())])
JUDGED_DOCUMENT = pa.struct([("id", pa.string()), ("text", pa.string()), ("relevant", pa.bool_())])
SOURCE_COLUMNS = [
    ("source_span_ids", TEXTS),
    ("session_id", pa.string()),
    ("started_at", pa.timestamp("us", tz="UTC")),
]
ORIGIN_COLUMNS = [("origin", pa.string()), ("trace_id", pa.string()), *SOURCE_COLUMNS]
PROMPT_COLUMNS = [("prompt", pa.list_(MESSAGE)), ("tools", pa.string()), ("prompt_key", pa.string())]
SCHEMAS: dict[type[Value], Any] = {
    SFTExample: pa.schema([*PROMPT_COLUMNS, ("completion", MESSAGE), *ORIGIN_COLUMNS]),
    PreferencePair: pa.schema(
        [
            *PROMPT_COLUMNS,
            ("chosen", MESSAGE),
            ("rejected", MESSAGE),
            ("preferred_by", pa.string()),
            *ORIGIN_COLUMNS,
        ]
    ),
    UnpairedPreference: pa.schema(
        [*PROMPT_COLUMNS, ("completion", MESSAGE), ("desirable", pa.bool_()), *ORIGIN_COLUMNS]
    ),
    Triplet: pa.schema(
        [
            ("query", pa.string()),
            ("positive", DOCUMENT),
            ("negative", DOCUMENT),
            ("prompt_key", pa.string()),
            *ORIGIN_COLUMNS,
        ]
    ),
    Trajectory: pa.schema(
        [
            ("messages", pa.list_(MESSAGE)),
            ("learned", pa.list_(pa.int64())),
            ("tools", pa.string()),
            ("outcome", pa.string()),
            ("score", pa.float64()),
            ("trace_ids", TEXTS),
            ("prompt_keys", TEXTS),
            ("turn_span_ids", pa.list_(TEXTS)),
            *ORIGIN_COLUMNS,
        ]
    ),
    ReviewedItem: pa.schema(
        [
            *PROMPT_COLUMNS,
            ("response", MESSAGE),
            ("outcome", pa.string()),
            ("gold", MESSAGE),
            ("trace_id", pa.string()),
            ("verdict_rank", pa.int64()),
            ("verdict_at", pa.timestamp("us", tz="UTC")),
            ("answered_by", pa.string()),
            *SOURCE_COLUMNS,
        ]
    ),
    ReviewedRetrieval: pa.schema(
        [
            ("query", pa.string()),
            ("documents", pa.list_(JUDGED_DOCUMENT)),
            ("trace_id", pa.string()),
            ("prompt_key", pa.string()),
            *SOURCE_COLUMNS,
        ]
    ),
}
ROW_GROUP = 1000
"""Records that are in memory twice at a time; an Arrow column of text holds 2 GB at most."""
GROUP_BYTES = 2**26
"""Size of a row group of ours, where its records are large."""
MOST_COLUMN_BYTES = 2**27
"""Size of one column in a row group of a file that is imported, and so of what one value can be."""


def write_columns(records: Sequence[Record], kind: type[Record], path: Path) -> None:
    """Write one row a record, zstd-compressed; an empty file still has every column."""
    schema = SCHEMAS[kind]
    with pq.ParquetWriter(path, schema, compression="zstd") as file:
        for start in range(0, len(records), ROW_GROUP):
            rows = [_to_row(record) for record in records[start : start + ROW_GROUP]]
            table = pa.Table.from_pylist(rows, schema=schema)
            file.write_table(table, max(1, min(len(rows), len(rows) * GROUP_BYTES // max(table.nbytes, 1))))


class ColumnTooLarge(LearndError):
    """A file's row group is too large to be read; a single value may be."""


class ColumnsDamaged(LearndError):
    """A file that `write_columns` wrote is not what it was."""


def read_columns(kind: type[Record], path: Path) -> tuple[Record, ...]:
    """Return the records that `write_columns` wrote. Raises ColumnsDamaged."""
    try:
        return tuple(from_row(kind, row) for row in read_rows(kind, path))
    except (OSError, pa.ArrowException, ValueError) as problem:
        # Not the problem's own words, which may quote an example.
        raise ColumnsDamaged(f"{path} cannot be read ({type(problem).__name__})") from problem


def read_rows(kind: type[Value], path: Path, most_bytes: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file unchanged, with a part of them in memory at a time.

    Raises ColumnTooLarge, before anything is read, where a row group's column takes more than `most_bytes`.
    """
    with pq.ParquetFile(path) as file:
        largest = _find_largest_column(file.metadata)
        if most_bytes is not None and largest > most_bytes:
            raise ColumnTooLarge(
                f"a column of a row group takes {largest >> 20} MiB, more than {most_bytes >> 20}; "
                f"write row groups of {ROW_GROUP} rows, and no values of this size"
            )
        # A value that is stored once, for many rows, is in memory once for each row of a batch.
        rows = ROW_GROUP if most_bytes is None else max(1, min(ROW_GROUP, most_bytes // max(largest, 1)))
        for batch in file.iter_batches(rows, columns=SCHEMAS[kind].names):
            yield from batch.to_pylist()


def _find_largest_column(metadata: Any) -> int:
    """Return the bytes of the largest column of any row group, as the file's end tells, uncompressed."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    return max(
        (
            group.column(index).total_uncompressed_size
            for group in groups
            for index in range(group.num_columns)
        ),
        default=0,
    )


def from_row(kind: type[Record], row: dict[str, Any]) -> Record:
    """Return the record of a row. Raises ValueError (pydantic's included) where it holds none."""
    if "tools" in row:
        row = {**row, "tools": json.loads(row["tools"] or "[]")}
    return kind.model_validate(row)


def _to_row(record: Value) -> dict[str, Any]:
    row = record.model_dump()
    if "tools" in row:
        row["tools"] = json.dumps(row["tools"], ensure_ascii=False)
    return row
