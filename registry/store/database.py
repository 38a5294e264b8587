"""Connections to the SQLite file, and what every group of records shares: reading and writing."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, insert, select
from sqlalchemy.exc import OperationalError

from registry.store.tables import targets
from registry.targets import TargetState

T = TypeVar("T")

StoreUnavailable = OperationalError
"""What reading and writing raise while the database is locked for too long, or its disk is full."""
BUSY_MILLISECONDS = 30_000
"""How long a writer waits for another one before it gives up."""
_WRITES = "learnd_writes"
_BOUND_VALUES = 500
"""Values in one IN list; databases limit the parameters of a statement."""


def create_sqlite_engine(path: Path, *, foreign_keys: bool = True) -> Engine:
    """Connections to the database at `path`: durable, with many readers beside one writer.

    `foreign_keys` is off only for migrations, which rebuild tables that others refer to.
    """
    engine = create_engine(URL.create("sqlite", database=str(path)))

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        # We say BEGIN ourselves: the driver's own begins too late, and never for DDL.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads and then writes must own the write lock from its start, or
        # what it read may be stale when it writes.
        writes = connection.get_execution_options().get(_WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def allow_writing(engine: Engine) -> Engine:
    """The same connections, whose transactions may write."""
    return engine.execution_options(**{_WRITES: True})


class Database:
    """A group of records on one engine; used from any thread and any number of processes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = allow_writing(engine)

    def _reading(self) -> AbstractContextManager[Connection]:
        """One consistent view of everything."""
        return self._engine.connect()

    def _writing(self) -> AbstractContextManager[Connection]:
        """One transaction: committed at the end of the block, rolled back by an error."""
        return self._writer.begin()


def lock_target(connection: Connection, target: str) -> TargetState:
    """The target's row, made where it is new; nobody else changes the target in this transaction."""
    mine = select(targets).where(targets.c.target == target).with_for_update()
    row = connection.execute(mine).mappings().one_or_none()
    if row is not None:
        return TargetState.model_validate(dict(row))
    state = TargetState(target=target)
    connection.execute(insert(targets).values(state.model_dump()))
    return state


def split_into_chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """`values` in pieces small enough for one statement."""
    for start in range(0, len(values), _BOUND_VALUES):
        yield values[start : start + _BOUND_VALUES]
