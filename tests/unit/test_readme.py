"""The README tells the truth about what is there, and stays short."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
TREE = next(block for block in README.split("```text\n") if block.startswith("extractors/")).split("```")[0]
STAGES = ("extractors", "trainers", "evaluation", "registry", "daemon", "learnd")
MAX_LINES = 250


def iterate_listed() -> Iterator[str]:
    """The folders of the tree, each with its path from the root."""
    stage = ""
    for line in TREE.splitlines():
        name = line.split()[0].rstrip("/")
        if line.startswith("  "):
            yield f"{stage}/{name}"
        else:
            stage = name
            yield stage


def find_packages(stage: str) -> set[str]:
    return {str(file.parent.relative_to(ROOT)) for file in (ROOT / stage).rglob("__init__.py")}


@pytest.mark.parametrize("stage", STAGES)
def test_the_tree_has_a_line_for_every_package_and_no_other(stage: str) -> None:
    listed = [name for name in iterate_listed() if name.split("/")[0] == stage]
    assert sorted(listed) == sorted(find_packages(stage))


def test_the_tree_has_a_line_for_every_kind_of_tests_and_no_other() -> None:
    listed = {name for name in iterate_listed() if name.split("/")[0] == "tests"}
    assert listed == {name for name in find_packages("tests") if name.count("/") <= 1}


def test_every_line_of_the_tree_says_what_the_folder_is_for() -> None:
    assert all(len(line.split()) > 2 for line in TREE.splitlines())


def test_every_file_of_ours_stands_in_a_package_of_the_tree() -> None:
    listed = set(iterate_listed())
    for stage in STAGES:
        for file in (ROOT / stage).rglob("*.py"):
            if "migrations" not in file.parts:
                assert str(file.parent.relative_to(ROOT)) in listed, file


def test_the_readme_is_read_in_minutes() -> None:
    assert len(README.splitlines()) <= MAX_LINES


def test_every_link_of_the_readme_leads_to_a_file_and_a_heading() -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", README)
    inside = [link for link in links if "://" not in link]
    assert inside
    for link in inside:
        path, _, heading = link.partition("#")
        text = (ROOT / path).read_bytes().decode("utf-8", "replace")
        if heading:
            headings = [re.sub(r"[^\w\- ]", "", line.lstrip("# ")).lower() for line in text.splitlines()]
            assert heading in {line.strip().replace(" ", "-") for line in headings}, link
