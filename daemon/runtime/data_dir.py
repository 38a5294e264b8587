"""Makes the data directory private: what learnd mirrors and trains on is nobody else's to read.

<data_dir>          0700    with an adapters_group: 0710, the group passes through
<data_dir>/adapters 0700    with an adapters_group: 2750, the group reads the adapters (alone)
everything else     0700, files 0600
"""

import grp
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from daemon.runtime.paths import adapter_folder
from daemon.settings.load import Settings
from extractors.errors import LearndError
from registry.adapter_files import share_adapter
from registry.store.store import Store

log = logging.getLogger(__name__)
ADAPTERS = "adapters"
OURS = (
    *(ADAPTERS, "backups", "imports", "learnd.db*", "learnd.lock", "locks", "replay", "runs", "snapshots"),
)
"""What learnd itself puts into the data directory, as patterns; the rest may be somebody else's."""
PRIVATE = 0o700
OTHERS = 0o077


class DataDirUnusable(LearndError):
    """The data directory cannot be made, written, or shared as the settings say."""


def prepare_data_dir(settings: Settings) -> None:
    """Make the data directory where it is new, tighten one that others can read, and say so.

    From then on this process, and its children, make files that nobody else can read. Raises
    DataDirUnusable where learnd may not write there, or does not belong to the adapters' group.
    """
    os.umask(OTHERS)
    data_dir, group = settings.data_dir, _find_group(settings.adapters_group)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        if not os.access(data_dir, os.W_OK | os.X_OK):
            raise DataDirUnusable(
                f"data_dir: user {os.geteuid()} may not write to {data_dir}; change its owner, or the mount"
            )
        (data_dir / ADAPTERS).mkdir(exist_ok=True)
        _tighten(data_dir, group)
    except OSError as problem:
        raise DataDirUnusable(f"data_dir: {data_dir} cannot be used: {problem}") from problem


def share_adapters(data_dir: Path, store: Store) -> None:
    """Let the adapters' group read the files of every version that has them, as the settings may be new."""
    for version in store.versions():
        folder = adapter_folder(data_dir, version)
        if version.files_removed_at is None and folder.is_dir():
            share_adapter(folder, [name for name in version.files if (folder / name).is_file()])


def _tighten(data_dir: Path, group: int | None) -> None:
    """Set the permissions of the directory and of what lies in it, all the way down where that was open."""
    changed = 0
    for pattern in OURS:
        for entry in data_dir.glob(pattern):
            wanted = 0o2750 if group is not None and entry.name == ADAPTERS else PRIVATE
            if stat.S_IMODE(entry.stat().st_mode) & ~wanted:
                changed += sum(_close(path) for path in _walk(entry))
            if entry.name == ADAPTERS:
                _permit(entry, wanted, group)
    opened = stat.S_IMODE(data_dir.stat().st_mode) & OTHERS & ~(0o010 if group is not None else 0)
    _permit(data_dir, PRIVATE if group is None else 0o710, group)
    if changed or opened:
        log.warning(
            "%s could be read by other users of this machine; it is private now (%d files and folders in it)",
            data_dir,
            changed,
        )


def _walk(entry: Path) -> Iterator[Path]:
    """Yield everything below `entry`, and then itself; what links lead to is left alone."""
    for folder, folders, names in os.walk(entry, topdown=False):
        yield from (Path(folder, name) for name in (*folders, *names))
    yield entry


def _close(path: Path) -> bool:
    """Take the permissions of group and others away; return whether there were any."""
    if path.is_symlink() or not (mode := stat.S_IMODE(path.stat().st_mode)) & OTHERS:
        return False
    path.chmod(mode & PRIVATE)
    return True


def _permit(folder: Path, mode: int, group: int | None) -> None:
    """Give a folder its mode and group. Another owner's, as a mounted volume may be, is left as it is."""
    found = folder.stat()
    if os.geteuid() not in {found.st_uid, 0}:
        if stat.S_IMODE(found.st_mode) & 0o007:
            log.warning("%s belongs to another user, and others can list it: take that from them", folder)
        return
    if group is not None and found.st_gid != group:
        try:
            os.chown(folder, -1, group)
        except PermissionError as refused:
            raise DataDirUnusable(
                f"adapters_group: learnd's user does not belong to the group {group}, so it cannot share "
                "adapters with it; add the user to the group"
            ) from refused
    if stat.S_IMODE(found.st_mode) != mode:
        folder.chmod(mode)


def _find_group(group: str | None) -> int | None:
    """Return the number of a group, which is given by name or number."""
    if group is None or group.isdecimal():
        return None if group is None else int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise DataDirUnusable(f"adapters_group: this machine has no group {group!r}") from None
