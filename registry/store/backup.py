"""Copies of the database that are consistent while others read and write it."""

import logging
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from registry.store.database import StoreUnavailable

log = logging.getLogger(__name__)

KEPT = 5
"""The newest back-ups that stay."""


def back_up(database: Path, folder: Path, now: datetime) -> Path:
    """Copy the database with SQLite's back-up API; returns the copy, a complete database file.

    To restore: stop learnd, put the copy in the database's place, and remove the files beside
    it that end in `-wal` and `-shm`. Raises StoreUnavailable and OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / f"{database.stem}-{now.astimezone(UTC):%Y%m%dT%H%M%S%fZ}.db"
    unfinished = copy.with_suffix(".tmp")
    try:
        with (
            closing(sqlite3.connect(database)) as source,
            closing(sqlite3.connect(unfinished)) as destination,
        ):
            source.backup(destination)
    except sqlite3.Error as problem:
        raise StoreUnavailable(f"copying it to {folder} failed ({problem})") from problem
    unfinished.replace(copy)
    log.info("backed up %s to %s", database, copy)
    for old in sorted(folder.glob(f"{database.stem}-*.db"))[:-KEPT]:
        old.unlink()
    return copy
