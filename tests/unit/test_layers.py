"""The import table of the architecture, enforced."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = {"daemon", "evaluation", "extractors", "learnd", "registry", "trainers"}
MAY_IMPORT = {
    "extractors": set(),
    "trainers": {"extractors"},
    "evaluation": {"extractors", "trainers"},
    "registry": {"extractors", "trainers", "evaluation"},
    "daemon": OURS,
    "learnd": {"daemon"},  # `__main__` alone, which starts the command line
}


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


@pytest.mark.parametrize("stage", sorted(OURS))
def test_a_stage_imports_only_the_stages_before_it(stage: str) -> None:
    for file in (ROOT / stage).rglob("*.py"):
        used = {name.split(".")[0] for name in imports(file)} & OURS - {stage}
        assert used <= MAY_IMPORT[stage], f"{file.relative_to(ROOT)} imports {used - MAY_IMPORT[stage]}"


def test_only_main_reaches_from_the_client_to_the_daemon() -> None:
    reaching = {
        f.name for f in (ROOT / "learnd").glob("*.py") if any(i.startswith("daemon") for i in imports(f))
    }
    assert reaching == {"__main__.py"}


def test_store_and_serving_do_not_know_each_other() -> None:
    for one, other in (("store", "serving"), ("serving", "store")):
        for file in (ROOT / "registry" / one).rglob("*.py"):
            assert not [name for name in imports(file) if name.startswith(f"registry.{other}")], file


@pytest.mark.parametrize(
    ("library", "owner"),
    [("sqlalchemy", "registry/store"), ("alembic", "registry/store"), ("apscheduler", "daemon")],
)
def test_a_library_with_an_owner_is_used_by_nobody_else(library: str, owner: str) -> None:
    # The gateway names SQLAlchemy's errors, to go on with the routes it knows.
    allowed = {ROOT / "daemon" / "gateway" / "routes.py"}
    for stage in OURS:
        for file in (ROOT / stage).rglob("*.py"):
            if file in allowed or file.is_relative_to(ROOT / owner):
                continue
            assert library not in {name.split(".")[0] for name in imports(file)}, file


@pytest.mark.parametrize("module", ["daemon.settings.load", "daemon.cli", "learnd"])
def test_what_must_start_fast_loads_no_heavy_library(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    heavy = {"torch", "transformers", "trl", "dspy", "vllm", "phoenix", "nicegui", "fastapi", "sklearn"}
    assert not {*heavy, "scipy.stats"} & set(loaded.stdout.split())
