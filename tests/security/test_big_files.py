"""Files that are far too large: commands say so, and never hold them in memory."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from extractors.examples.types import Message, SFTExample
from extractors.file_formats.parquet import SCHEMAS, write_columns
from extractors.file_formats.read_write import read_records

MEGABYTES = 200
SETTINGS = """\
[[targets]]
tenant = "acme"
agent = "routing"
project = "p"
task = "generation"
base_model = "none"
"""


def run_learnd(folder: Path, *command: str) -> tuple[int, str, int]:
    """Run a command; returns its exit code, what it wrote to stderr, and the most memory it used, in MB."""
    (folder / "learnd.toml").write_text(SETTINGS)
    with (folder / "stderr").open("w+b") as stderr:
        child = subprocess.Popen(
            [sys.executable, "-m", "learnd", *command],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            stderr=stderr,
        )
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        stderr.seek(0)
        return child.returncode, stderr.read().decode(), used.ru_maxrss // 1024


@pytest.mark.parametrize(
    ("begin", "end", "reason"),
    [
        (b"", b"", "line 1 has more than 16 MiB"),
        (b'{"prompt": "', b'", "completion": "b"}\n', "line 1 has more than 16 MiB"),
        (b'{}\n{"prompt": "', b"", "line 2 has more than 16 MiB"),
        (b'[{"prompt": "', b'", "completion": "b"}]', "a JSON array of more than 64 MiB"),
    ],
)
def test_an_import_of_one_huge_line_ends_with_one_sentence(
    tmp_path: Path, begin: bytes, end: bytes, reason: str
) -> None:
    path = tmp_path / "big.jsonl"
    with path.open("wb") as file:
        file.write(begin)
        # A hole in the file, which takes no room on the disk.
        file.seek(MEGABYTES * 2**20, os.SEEK_CUR)
        file.write(end or b"x")
    code, said, megabytes = run_learnd(tmp_path, "data", "import", str(path))
    assert (code, said.count("\n")) == (1, 1)
    assert reason in said
    _, _, without = run_learnd(tmp_path, "data", "imports")
    assert megabytes < without + MEGABYTES / 2


def write_one_value(path: Path, megabytes: int, rows: int) -> None:
    """Write SFT examples that share one value; where it repeats, the file stores it once."""
    schema = SCHEMAS[SFTExample]
    message = {"role": "assistant", "content": "a" * megabytes * 2**20}
    prompt = [{"role": "user", "content": "b"}]
    columns = {
        "prompt": [prompt] * rows,
        "completion": [message] * rows,
        "origin": ["telemetry"] * rows,
        "source_span_ids": [["s1"]] * rows,
        "started_at": [datetime(2026, 1, 1, tzinfo=UTC)] * rows,
        "prompt_key": ["k"] * rows,
    }
    table = pa.table(
        [pa.array(columns.get(field.name, [None] * rows), field.type) for field in schema], schema=schema
    )
    pq.write_table(table, path, compression="zstd", dictionary_pagesize_limit=2**30)


def test_a_parquet_file_of_one_huge_value_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "big.parquet"
    write_one_value(path, 150, 1)
    assert path.stat().st_size < 2**20
    code, said, megabytes = run_learnd(tmp_path, "data", "import", str(path))
    assert code == 1
    assert "a column of a row group takes 150 MiB" in said
    _, _, without = run_learnd(tmp_path, "data", "imports")
    assert megabytes < without + 100


def test_a_value_that_is_stored_once_for_many_rows_is_not_in_memory_for_each(tmp_path: Path) -> None:
    path = tmp_path / "big.parquet"
    write_one_value(path, 16, 40)
    with pq.ParquetFile(path) as file:
        assert file.metadata.row_group(0).total_byte_size < 20 * 2**20
    done = subprocess.run(
        [sys.executable, "-c", READS_ROWS, str(path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    rows, megabytes = done.stdout.split()
    assert int(rows) == 40
    assert int(megabytes) < 450


READS_ROWS = """
import resource, sys
from pathlib import Path
from extractors.examples.types import Message, SFTExample
from extractors.file_formats.parquet import MOST_COLUMN_BYTES, read_rows

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = sum(1 for _ in read_rows(SFTExample, Path(sys.argv[1]), MOST_COLUMN_BYTES))
print(rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_what_is_exported_can_be_imported_however_large_the_examples_are(tmp_path: Path) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    examples = [
        SFTExample(
            prompt=(Message(role="user", content="q"),),
            completion=Message(role="assistant", content=f"{number}" + "a" * 2**23),
            prompt_key="k",
            origin="telemetry",
            source_span_ids=("s",),
            started_at=moment,
        )
        for number in range(20)
    ]
    path = tmp_path / "ours.parquet"
    write_columns(examples, SFTExample, path)
    with pq.ParquetFile(path) as file:
        assert file.metadata.num_row_groups > 1
    assert list(read_records(SFTExample, path, now=moment)) == examples


def test_a_reviewed_file_that_is_huge_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "big.jsonl"
    with path.open("wb") as file:
        file.truncate(MEGABYTES * 2**20)
    code, said, megabytes = run_learnd(tmp_path, "approvals", "import", "batch", str(path))
    assert (code, said.count("\n")) == (1, 1)
    assert "more than 64 MiB" in said
    _, _, without = run_learnd(tmp_path, "data", "imports")
    assert megabytes < without + MEGABYTES / 2
