"""The import tables of the architecture, enforced: between stages, between packages, between files."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
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

# What each package (or file) of a stage may import of the same stage, from the ground floor up:
# it may import only what stands above it in its table.
PACKAGES: Mapping[str, Mapping[str, str]] = {
    "extractors": {
        "errors": "",
        "values": "",
        "examples": "values",
        "llm": "errors examples values",
        "phoenix": "errors values",
        "cleaning": "errors examples values",
        "span_parsing": "errors examples phoenix values",
        "feedback": "examples phoenix span_parsing values",
        "file_formats": "errors examples span_parsing values",
        "synthesis": "cleaning errors examples llm values",
        "dataset": "cleaning errors examples feedback file_formats values",
        "traffic_sample": "cleaning examples phoenix span_parsing values",
    },
    "extractors/span_parsing": {
        "drop_reasons": "",
        "nested_attributes": "drop_reasons",
        "ownership": "drop_reasons nested_attributes",
        "recorded": "drop_reasons",
        "checks": "drop_reasons nested_attributes",
        "messages": "drop_reasons nested_attributes recorded",
        "conventions": "drop_reasons messages nested_attributes recorded",
        "records": "drop_reasons messages nested_attributes recorded",
        "calls": "checks conventions drop_reasons messages nested_attributes ownership recorded records",
        "merge": "calls",
        "retriever_spans": "drop_reasons messages nested_attributes ownership",
    },
    "trainers": {
        "memory": "",
        "planning": "",
        "quick_imports": "",
        "job_folder": "memory",
        "models": "memory planning quick_imports",
        "batching": "models planning",
        "recovery": "job_folder memory planning",
        "estimate": "batching models planning recovery",
        "methods": "models planning recovery",
        "replay": "job_folder models quick_imports",
        "jobs": "batching estimate job_folder memory methods models planning quick_imports recovery replay",
        "trials": "estimate job_folder jobs memory models recovery",
    },
    "evaluation": {
        "metrics": "",
        "race_report": "",
        "rules": "",
        "validation_side": "",
        "weighting": "",
        "report": "metrics race_report rules weighting",
        "engine": "report",
        "score_side": "metrics report",
        "verdict": "metrics race_report report rules weighting",
        "jobs": "engine metrics race_report report rules score_side validation_side verdict weighting",
        "race": "engine jobs metrics race_report score_side validation_side verdict",
    },
    "registry": {
        "adapter_files": "",
        "audit": "",
        "batches": "",
        "cycles": "",
        "notices": "",
        "targets": "",
        "versions": "",
        "retention": "versions",
        "serving": "adapter_files targets",
        "store": "audit batches cycles notices retention targets versions",
    },
    "daemon": {
        "settings": "",
        "access": "settings",
        "runtime": "settings",
        "data": "runtime settings",
        "monitoring": "access runtime settings",
        "serving": "runtime settings",
        "doctor": "access data monitoring runtime serving settings",
        "gateway": "access monitoring runtime settings",
        "scheduling": "data runtime settings",
        "views": "data runtime scheduling settings",
        "api": "access data monitoring runtime serving settings views",
        "console": "access data runtime serving settings views",
        "cycle": "data runtime scheduling serving settings views",
        "publishing": "runtime settings views",
        "route_server": "access api runtime settings",
        "run_once": "cycle data publishing route_server runtime serving settings",
        "server": "access api console monitoring runtime settings views",
        "guarded_job": "monitoring runtime scheduling views",
        "watchdog": "scheduling views",
        "service": (
            "access console cycle data guarded_job monitoring publishing runtime scheduling server serving "
            "settings views watchdog"
        ),
        "demo": "data route_server run_once runtime settings",
        "cli": "access cycle data demo doctor gateway run_once runtime service serving settings views",
    },
    "daemon/console": {
        "base": "",
        "frame": "base",
        "guard": "base",
        "sockets": "base guard",
        "plain_page": "frame",
        "not_found": "base plain_page",
        "report": "base",
        "review": "base",
        "pages": "base frame plain_page report review",
        "mount": "base guard not_found pages sockets",
    },
}


@cache
def imports(file: Path) -> frozenset[str]:
    """Return the modules that `file` imports, at its top or inside its functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            submodules = {name for name in names if is_module(name)}
            found.update(submodules if submodules == names else {node.module, *submodules})
    return frozenset(found)


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def our_files() -> Iterator[Path]:
    return (file for stage in sorted(OURS) for file in (ROOT / stage).rglob("*.py"))


def package_arrows(folder: str) -> dict[str, set[str]]:
    """Return which packages and files directly inside `folder` import which others there."""
    base, prefix = ROOT / folder, folder.replace("/", ".") + "."
    arrows: dict[str, set[str]] = {}
    for file in base.rglob("*.py"):
        room = file.relative_to(base).parts[0].removesuffix(".py")
        used = {name.removeprefix(prefix).split(".")[0] for name in imports(file) if name.startswith(prefix)}
        arrows.setdefault(room, set()).update(used - {room})
    del arrows["__init__"]
    return arrows


@pytest.mark.parametrize("stage", sorted(OURS))
def test_a_stage_imports_only_the_stages_before_it(stage: str) -> None:
    for file in (ROOT / stage).rglob("*.py"):
        used = {name.split(".")[0] for name in imports(file)} & OURS - {stage}
        assert used <= MAY_IMPORT[stage], f"{file.relative_to(ROOT)} imports {used - MAY_IMPORT[stage]}"


@pytest.mark.parametrize("folder", PACKAGES)
def test_a_package_imports_only_what_its_table_allows(folder: str) -> None:
    allowed = {room: set(names.split()) for room, names in PACKAGES[folder].items()}
    assert package_arrows(folder) == allowed


@pytest.mark.parametrize("folder", PACKAGES)
def test_the_table_of_a_stage_stands_on_floors(folder: str) -> None:
    below: set[str] = set()
    for room, names in PACKAGES[folder].items():
        assert set(names.split()) <= below, (
            f"{folder}/{room} imports what does not stand above it in the table"
        )
        below.add(room)


def test_no_files_import_each_other_in_a_circle() -> None:
    modules = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
        for file in our_files()
    }
    arrows = {name: (imports(file) & modules.keys()) - {name} for name, file in modules.items()}
    assert find_circle(arrows) == []


def find_circle(arrows: Mapping[str, Iterable[str]]) -> list[str]:
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as circle:
        found: list[str] = circle.args[1]
        return found
    return []


def test_only_main_reaches_from_the_client_to_the_daemon() -> None:
    reaching = {
        f.name for f in (ROOT / "learnd").glob("*.py") if any(i.startswith("daemon") for i in imports(f))
    }
    assert reaching == {"__main__.py"}


def test_store_and_serving_do_not_know_each_other() -> None:
    for one, other in (("store", "serving"), ("serving", "store")):
        for file in (ROOT / "registry" / one).rglob("*.py"):
            assert not [name for name in imports(file) if name.startswith(f"registry.{other}")], file


def test_the_gateway_knows_no_store() -> None:
    for file in (ROOT / "daemon" / "gateway").rglob("*.py"):
        assert not [name for name in imports(file) if name.startswith("registry")], file


@pytest.mark.parametrize(
    ("library", "owner"),
    [("sqlalchemy", "registry/store"), ("alembic", "registry/store"), ("apscheduler", "daemon")],
)
def test_a_library_with_an_owner_is_used_by_nobody_else(library: str, owner: str) -> None:
    for stage in OURS:
        for file in (ROOT / stage).rglob("*.py"):
            if file.is_relative_to(ROOT / owner):
                continue
            assert library not in {name.split(".")[0] for name in imports(file)}, file


TRAINING = "accelerate bitsandbytes datasets peft sentence_transformers sklearn torch transformers trl"
SERVERS = "dspy fastapi nicegui phoenix uvicorn vllm"
NUMBERS = "numpy pandas pyarrow scipy"
HEAVY = f"{TRAINING} {SERVERS} {NUMBERS} aiohttp alembic httpx prometheus_client structlog"


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        # `learnd --help`, `learnd version`, a mistyped command
        ("daemon.cli", f"{HEAVY} pydantic rich sqlalchemy"),
        # the settings, `learnd status` and the lists
        ("daemon.settings.load", f"{HEAVY} rich sqlalchemy"),
        ("daemon.cli.status", HEAVY),
        ("daemon.cli.cycles", HEAVY),
        ("daemon.cli.adapters", HEAVY),
        # the gateway, which reads no store
        ("daemon.gateway.run", f"{TRAINING} dspy fastapi nicegui phoenix vllm {NUMBERS} alembic sqlalchemy"),
        # a child process, before its job is known
        ("daemon.cli.work", f"{HEAVY} rich sqlalchemy"),
        # an agent's client
        ("learnd", f"{HEAVY} pydantic rich sqlalchemy"),
    ],
)
def test_what_must_start_fast_loads_no_heavy_library(module: str, heavy: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not set(heavy.split()) & set(loaded.stdout.split())
