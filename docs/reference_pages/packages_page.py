"""The packages of each stage, with the first line of their docstrings."""

import ast
from pathlib import Path

from reference_pages.markdown import GENERATED, cell, prose

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("extractors", "trainers", "evaluation", "registry", "daemon", "learnd")
INTRO = """# Packages

One line for each package: the first of its `__init__.py`. The tables in `tests/unit/test_layers.py` say which
package may import which.

"""


def packages_page() -> str:
    """Return the page as Markdown."""
    return GENERATED + INTRO + "".join(_describe(stage) for stage in STAGES)


def _describe(stage: str) -> str:
    files = sorted((ROOT / stage).rglob("__init__.py"))
    lines = [(file.parent.relative_to(ROOT), first_line(file)) for file in files]
    rows = "".join(f"| `{folder}/` | {cell(said)} |\n" for folder, said in lines if said)
    return f"## {stage}\n\n| package | what it is for |\n| --- | --- |\n{rows}\n"


def first_line(file: Path) -> str:
    """Return the first line of a module's docstring; empty where it has none."""
    docstring = ast.get_docstring(ast.parse(file.read_text("utf-8")))
    return prose(docstring).split("\n")[0]
