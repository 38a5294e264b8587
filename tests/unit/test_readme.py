"""The README tells the truth about what is there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TREE = (ROOT / "README.md").read_text("utf-8").split("```text\n")[1].split("```")[0]
FOLDERS = ("extractors", "trainers", "evaluation", "registry", "daemon", "learnd", "tests")


def listed() -> Iterator[str]:
    folder = ""
    for line in TREE.splitlines():
        if line.startswith("  "):
            yield folder + line.split()[0]
        else:
            folder = line


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_tree_has_a_line_for_every_file_and_no_other(folder: str) -> None:
    files = [file for file in (ROOT / folder).rglob("*.py") if file.read_text("utf-8").strip()]
    there = {str(file.relative_to(ROOT)) for file in files}
    assert there == {name for name in listed() if name.startswith(f"{folder}/") and name.endswith(".py")}
