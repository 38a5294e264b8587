"""Examples and reviewed items as Parquet columns, and back without loss.

Messages are nested columns that any Parquet reader shows; tools, whose JSON schema can be of
any shape, are JSON text. The schema is fixed: it does not depend on the data.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from extractors.examples import ReviewedItem, SFTExample

TOOL_CALL = pa.struct([("id", pa.string()), ("name", pa.string()), ("arguments", pa.string())])
MESSAGE = pa.struct(
    [
        ("role", pa.string()),
        ("content", pa.string()),
        ("tool_calls", pa.list_(TOOL_CALL)),
        ("tool_call_id", pa.string()),
        ("name", pa.string()),
    ]
)
ORIGIN = [
    ("source_span_ids", pa.list_(pa.string())),
    ("session_id", pa.string()),
    ("prompt_key", pa.string()),
    ("started_at", pa.timestamp("us", tz="UTC")),
]
EXAMPLES = pa.schema(
    [
        ("prompt", pa.list_(MESSAGE)),
        ("completion", MESSAGE),
        ("tools", pa.string()),
        ("origin", pa.string()),
        *ORIGIN,
    ]
)
ITEMS = pa.schema(
    [
        ("prompt", pa.list_(MESSAGE)),
        ("tools", pa.string()),
        ("response", MESSAGE),
        ("outcome", pa.string()),
        ("gold", MESSAGE),
        ("trace_id", pa.string()),
        ("user_id", pa.string()),
        ("answered_by", pa.string()),
        *ORIGIN,
    ]
)
SCHEMAS = {SFTExample: EXAMPLES, ReviewedItem: ITEMS}
Record = TypeVar("Record", SFTExample, ReviewedItem)


def write_columns(records: Sequence[Record], kind: type[Record], path: Path) -> None:
    """One row a record, zstd-compressed; an empty file still has every column."""
    rows = [
        {**record.model_dump(), "tools": json.dumps(record.tools, ensure_ascii=False)} for record in records
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMAS[kind]), path, compression="zstd")


def read_columns(kind: type[Record], path: Path) -> tuple[Record, ...]:
    """What `write_columns` wrote, equal to what it was given."""
    rows: list[dict[str, Any]] = pq.read_table(path, schema=SCHEMAS[kind]).to_pylist()
    return tuple(kind.model_validate({**row, "tools": json.loads(row["tools"])}) for row in rows)
