"""The built wheel, in an environment of its own, beside PyPI's `python-daemon`."""

import subprocess
import sys
import venv
from importlib.metadata import distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = {"daemon", "evaluation", "extractors", "registry", "trainers"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment with the wheel and python-daemon; other libraries come from ours."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel_of = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder)]
    subprocess.run([*wheel_of, str(ROOT)], check=True, capture_output=True)
    wheel = next(folder.glob("*.whl"))
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, str(wheel), "python-daemon==3.1.2"], check=True)
    return python


def run(python: Path, *arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python), *arguments], cwd=cwd, capture_output=True, text=True, env=env, check=False
    )


def test_the_base_install_is_what_an_agent_needs(installed: Path, tmp_path: Path) -> None:
    result = run(
        installed, "-W", "error", "-c", "from learnd import ActiveAdapter; print(ActiveAdapter)", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr


def test_python_daemon_keeps_its_name(installed: Path, tmp_path: Path) -> None:
    result = run(installed, "-c", "import learnd, daemon; print(daemon.DaemonContext)", cwd=tmp_path)
    assert "DaemonContext" in result.stdout, result.stderr


def test_a_command_whose_extra_is_missing_says_which_to_install(installed: Path, tmp_path: Path) -> None:
    result = run(installed, "-m", "learnd", "--version", cwd=tmp_path)
    assert result.returncode == 1
    assert "pip install 'learnd[daemon]'" in result.stderr


def test_the_command_line_of_the_wheel_runs_beside_python_daemon(installed: Path, tmp_path: Path) -> None:
    # The daemon's libraries are those of this environment; the code is the wheel's.
    libraries = next(path for path in sys.path if path.endswith("site-packages"))
    version = run(installed, "-m", "learnd", "init", cwd=tmp_path, PYTHONPATH=libraries)
    assert version.returncode == 0, version.stderr
    assert (tmp_path / "learnd.toml").exists()
    shown = run(installed, "-m", "learnd", "status", "--json", cwd=tmp_path, PYTHONPATH=libraries)
    assert "acme/routing" in shown.stdout, shown.stderr


def test_no_installed_distribution_ships_a_top_level_name_of_ours() -> None:
    for distribution in distributions():
        if distribution.metadata["Name"] == "learnd":
            continue
        tops = {file.parts[0].removesuffix(".py") for file in distribution.files or () if file.parts}
        assert not tops & OURS, distribution.metadata["Name"]
