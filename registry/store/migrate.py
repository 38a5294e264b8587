"""Bring the database to the revision that this code was written for, after a back-up."""

from collections.abc import Sequence
from datetime import datetime
from fcntl import LOCK_EX, flock
from pathlib import Path

from sqlalchemy import Engine, inspect, text

from extractors.errors import LearndError
from registry.store.backup import back_up
from registry.store.database import StoreUnavailable, allow_writing, create_sqlite_engine

MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "alembic_version"


class DatabaseTooNew(LearndError):
    """A newer learnd has migrated the database."""

    def __init__(self, database: Path, revision: str, backups: Path) -> None:
        super().__init__(
            f"{database} is at revision {revision}, which this learnd does not know; upgrade learnd, "
            f"or restore the back-up in {backups} that was made before the newer one ran"
        )


class DatabaseUnreadable(LearndError):
    """The file is not a database, is damaged, or stays locked."""

    def __init__(self, database: Path, cause: StoreUnavailable, backups: Path) -> None:
        super().__init__(
            f"cannot read {database}: {cause.state}; check the disk and the file's owner, "
            f"or restore a back-up from {backups}"
        )


class MigrationFailed(LearndError):
    """A migration left rows that refer to nothing; it was undone."""

    def __init__(self, database: Path, violations: int) -> None:
        super().__init__(
            f"migrating {database} would leave {violations} rows that refer to nothing; the database "
            "is as it was: go back to the learnd you had, and report this"
        )


def migrate(database: Path, backups: Path, now: datetime, migrations: Path = MIGRATIONS) -> Path | None:
    """Create the database, or migrate it; returns the back-up that was made first, if any.

    One transaction: a crash in the middle leaves the old database. Of several processes one
    migrates while the others wait. Raises DatabaseTooNew, DatabaseUnreadable, MigrationFailed.
    """
    engine = create_sqlite_engine(database, foreign_keys=False)
    # A lock file, since SQLite refuses at once, without waiting, where two make a new database.
    with database.with_suffix(".lock").open("w") as lock:
        flock(lock, LOCK_EX)
        try:
            before, known = _read_revision(engine, database, backups), list_revisions(migrations)
            if before == known[-1]:
                return None
            if before not in {None, *known}:
                raise DatabaseTooNew(database, str(before), backups)
            backup = back_up(database, backups, now) if before else None
            _upgrade(engine, database, migrations)
            return backup
        finally:
            engine.dispose()


def list_revisions(migrations: Path) -> Sequence[str]:
    """Return the revisions in their order, by the names of their files: Alembic would take longer to load."""
    return sorted(script.name.partition("_")[0] for script in (migrations / "versions").glob("[0-9]*.py"))


def _read_revision(engine: Engine, database: Path, backups: Path) -> str | None:
    """Return the revision that Alembic has written down; None for a new database."""
    try:
        with engine.connect() as connection:
            if not inspect(connection).has_table(VERSION_TABLE):
                return None
            return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608
    except StoreUnavailable as cause:
        raise DatabaseUnreadable(database, cause, backups) from cause


def _upgrade(engine: Engine, database: Path, migrations: Path) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    # ConfigParser reads % as the start of a reference.
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    with allow_writing(engine).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        violations = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        if violations:
            raise MigrationFailed(database, len(violations))
