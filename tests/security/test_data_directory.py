"""Everything that learnd writes is private, from whatever it was started and whatever was there before."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from daemon.runtime.data_dir import share_adapters
from registry.store.store import Store
from tests.support.trained_version import TRAINED_AT, add_trained_version

NOBODY = 65534
SETPRIV = shutil.which("setpriv")
GROUP = 54321
SETTINGS = """\
data_dir = "data"
{top}
[phoenix]
url = "http://127.0.0.1:9"
[[targets]]
tenant = "acme"
agent = "routing"
project = "p"
task = "generation"
base_model = "none"
"""


def run_learnd(folder: Path, *command: str, through: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run a command with an open umask, `through` another one."""
    return subprocess.run(
        [*through, sys.executable, "-m", "learnd", *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "HOME": str(folder)},
        capture_output=True,
        text=True,
        umask=0o000,
        check=False,
    )


def write_settings(folder: Path, top: str = "") -> None:
    (folder / "learnd.toml").write_text(SETTINGS.format(top=top))


def find_open(data_dir: Path) -> list[str]:
    """Return what others than the owner may do anything with."""
    return [str(path) for path in (data_dir, *data_dir.rglob("*")) if read_mode(path) & 0o077]


def read_mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_data_directory_is_private_whatever_the_umask(tmp_path: Path) -> None:
    write_settings(tmp_path)
    ran = run_learnd(tmp_path, "adapters", "hold")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert (tmp_path / "data" / "learnd.db").stat().st_size
    assert find_open(tmp_path / "data") == []


def test_one_that_others_could_read_is_tightened_and_that_is_said_once(tmp_path: Path) -> None:
    write_settings(tmp_path)
    data = tmp_path / "data"
    for folder in ("snapshots/acme.routing/1", "imports/acme.routing", "notes"):
        (data / folder).mkdir(parents=True)
        (data / folder / "file").write_text("text")
    data.chmod(0o755)
    outside = tmp_path / "outside"
    outside.write_text("text")
    outside.chmod(0o644)
    (data / "imports" / "link").symlink_to(outside)
    first, second = (run_learnd(tmp_path, "adapters", "hold") for _ in range(2))
    assert "could be read by other users" in first.stderr
    assert "private" not in second.stderr
    strangers = {str(path) for path in (data / "notes", data / "notes" / "file", data / "imports" / "link")}
    assert set(find_open(data)) <= strangers
    assert read_mode(data) == 0o700
    # Neither what somebody else put there nor what a link leads to is ours to change.
    assert read_mode(outside) == 0o644


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to a group that it is not in")
def test_a_group_reads_the_adapters_and_nothing_else(tmp_path: Path) -> None:
    write_settings(tmp_path, f'adapters_group = "{GROUP}"')
    data = tmp_path / "data"
    assert run_learnd(tmp_path, "adapters", "hold").returncode == 0
    with Store.open(data, TRAINED_AT) as store:
        version = add_trained_version(store, data)
    folder = data / version.path
    for path in (folder.parent, folder):
        path.chmod(0o700)
    (folder / "report.json").write_text("what reviewers said")
    for path in folder.iterdir():
        path.chmod(0o600)
    with Store.open(data, TRAINED_AT) as store:
        share_adapters(data, store)
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:3]:  # One more where several processes test.
        parent.chmod(parent.stat().st_mode | 0o011)

    def read_as_server(path: Path) -> bool:
        reading = ["cat", str(path)]
        found = subprocess.run(
            reading, user=NOBODY, group=GROUP, extra_groups=[], capture_output=True, check=False
        )
        return found.returncode == 0

    assert read_as_server(folder / "adapter_model.safetensors")
    for private in (folder / "report.json", data / "learnd.db", data / "locks"):
        assert not read_as_server(private)
    assert read_mode(data) == 0o710
    write_settings(tmp_path)
    assert "could be read" in run_learnd(tmp_path, "adapters", "hold").stderr
    assert find_open(data) == []


def test_an_unknown_group_is_told(tmp_path: Path) -> None:
    write_settings(tmp_path, 'adapters_group = "no-such-group-here"')
    ran = run_learnd(tmp_path, "status")
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)
    assert "no group 'no-such-group-here'" in ran.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("run",),
        ("once",),
        ("data", "summary"),
        ("adapters", "list"),
        ("data", "export", "x.jsonl"),
    ],
)
def test_a_directory_that_cannot_be_written_is_one_line(tmp_path: Path, command: tuple[str, ...]) -> None:
    write_settings(tmp_path)
    # A file where the folder should be stops root, too, whom permissions do not stop.
    (tmp_path / "data").write_text("no folder")
    ran = run_learnd(tmp_path, *command)
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr + ran.stdout
    assert "data_dir: " in ran.stderr
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize("which", ["", "learnd.db", "learnd.lock"])
@pytest.mark.skipif(os.geteuid() != 0 or SETPRIV is None, reason="files of others need root and setpriv")
def test_files_of_another_user_are_one_line(tmp_path: Path, which: str) -> None:
    write_settings(tmp_path)
    assert run_learnd(tmp_path, "adapters", "hold").returncode == 0
    theirs = tmp_path / "data" / which
    os.chown(theirs, NOBODY, NOBODY)
    theirs.chmod(theirs.stat().st_mode & ~0o222)
    # Permissions do not stop root while it has its capabilities.
    ran = run_learnd(tmp_path, "adapters", "release", through=(str(SETPRIV), "--bounding-set=-all"))
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)
    assert ran.stderr.startswith("learnd: ")
