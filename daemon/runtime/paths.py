"""The layout of the data directory, in one place.

    learnd.db, backups/                       the store, which owns these two
    snapshots/<target>/<snapshot>/            frozen datasets
    runs/<target>/<cycle>/                    jobs of a cycle: checkpoints, logs, the report
    adapters/<target>/<cycle>/                files of a version
    imports/<target>/<kind>-<digest>.parquet  examples that operators brought
    replay/<base digest>/<part>/              what a base model wrote itself, to be mixed into trainings
    locks/                                    held while a daemon runs, or while one of these changes

`<target>` is the target's slug, `acme.routing` for `acme/routing`.
"""

import re
from pathlib import Path

from registry.cycles import Cycle
from registry.targets import slug
from registry.versions import Version

ABSOLUTE_PATH = re.compile(r"(?<![\w/:.}…])(/[\w.+@-]+)((?:/[\w.+@-]+)*)/([\w.+@-]+)")


def hide_folders(words: str) -> str:
    """Return a message without this machine's folders, for people who have no account on it.

    Of an absolute path its last name is left (`…/adapter_config.json`). What begins with no folder of this
    machine is a route, or a path of another one, and stays.
    """
    return ABSOLUTE_PATH.sub(lambda found: f"…/{found[3]}" if Path(found[1]).is_dir() else found[0], words)


def snapshots_folder(data_dir: Path, target: str) -> Path:
    """Return the folder of all snapshots of `target` (`tenant/agent`)."""
    return data_dir / "snapshots" / slug(target)


def snapshot_folder(data_dir: Path, target: str, snapshot_id: str) -> Path:
    """Return the folder of one snapshot of `target` (`tenant/agent`)."""
    return snapshots_folder(data_dir, target) / snapshot_id


def run_folder(data_dir: Path, cycle: Cycle) -> Path:
    """Return the folder in which the jobs of `cycle` work."""
    return data_dir / "runs" / slug(cycle.target) / cycle.id


def adapter_path(cycle: Cycle) -> str:
    """Return the folder of the version that `cycle` trains, relative to the data directory."""
    return f"adapters/{slug(cycle.target)}/{cycle.id}"


def adapter_folder(data_dir: Path, version: Version) -> Path:
    """Return the absolute folder of a version's files."""
    return data_dir / version.path


def imports_folder(data_dir: Path, target: str) -> Path:
    """Return the folder of the examples that operators imported for `target` (`tenant/agent`)."""
    return data_dir / "imports" / slug(target)


def replays_folder(data_dir: Path) -> Path:
    """Return the folder of what all base models wrote themselves."""
    return data_dir / "replay"


def replay_folder(data_dir: Path, base_digest: str) -> Path:
    """Return the folder of what the base model with this digest wrote itself."""
    return replays_folder(data_dir) / base_digest


def daemon_lock_file(data_dir: Path) -> Path:
    """Return the file that the daemon locks while it runs."""
    return data_dir / "locks" / "daemon"


def snapshot_lock_file(data_dir: Path, target: str) -> Path:
    """Return the file that is locked while snapshots of `target` (`tenant/agent`) come or go."""
    return data_dir / "locks" / f"snapshots.{slug(target)}"


def promotion_lock_file(data_dir: Path, target: str) -> Path:
    """Return the file that is locked while the active version of `target` (`tenant/agent`) changes."""
    return data_dir / "locks" / f"promotion.{slug(target)}"
