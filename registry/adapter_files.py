"""An adapter's files on disk, opened only where they are what the version's manifest says."""

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from extractors.errors import LearndError


class AdapterChanged(LearndError):
    """A file of an adapter is missing, is a link or lies in a folder that is one, or has changed."""


def open_adapter_file(folder: Path, name: str, digest: str) -> BinaryIO:
    """Open a file of the adapter in `folder` (`adapters/<target>/<cycle>`) for reading, from its start.

    Its content has the SHA-256 `digest`, and neither it nor the two folders is a symbolic link, which could
    lead out of the data directory. Raises AdapterChanged.
    """
    for link in (folder.parent, folder, folder / name):
        if link.is_symlink():
            raise AdapterChanged(f"{link} is a link; an adapter's files lie in the data directory themselves")
    try:
        # Without O_NONBLOCK a named pipe would keep us waiting for its other end.
        file = os.fdopen(os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    except OSError as missing:
        raise AdapterChanged(f"{folder / name} cannot be read: {missing.strerror}") from missing
    try:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise AdapterChanged(f"{folder / name} is no file")
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise AdapterChanged(f"{folder / name} has changed since the adapter was trained")
        file.seek(0)
    except AdapterChanged:
        file.close()
        raise
    return file


def share_adapter(folder: Path, names: Iterable[str]) -> None:
    """Let whoever may read the folder of all adapters read these files of one; nothing changes for others.

    `folder` is `adapters/<target>/<cycle>`. The reports beside the files stay private. Raises OSError.
    """
    adapters = folder.parent.parent
    for path in (folder.parent, folder, *(folder / name for name in names)):
        copy_permissions(adapters, path)


def copy_permissions(folder: Path, path: Path) -> None:
    """Give `path` the group and the permissions of `folder`; a file without those to search a folder."""
    source = folder.stat()
    mode = stat.S_IMODE(source.st_mode)
    if mode & 0o070 and path.stat().st_gid != source.st_gid:
        os.chown(path, -1, source.st_gid)
    path.chmod(mode if path.is_dir() else mode & 0o666)


def check_adapter_files(folder: Path, files: Mapping[str, str]) -> None:
    """Check every file of an adapter; `files` maps a name to its SHA-256. Raises AdapterChanged."""
    for name, digest in files.items():
        open_adapter_file(folder, name, digest).close()
