"""Connections to the SQLite file, and what every group of records shares: reading and writing."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event, insert, select
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from extractors.errors import LearndError
from registry.store.tables import targets
from registry.targets import TargetState

T = TypeVar("T")

STATES = {
    "SQLITE_BUSY": "another process holds the database for too long",
    "SQLITE_LOCKED": "another process holds the database for too long",
    "SQLITE_FULL": "its disk is full",
    "SQLITE_READONLY": "learnd may not write it",
    "SQLITE_CANTOPEN": "its file cannot be opened",
    "SQLITE_IOERR": "its disk failed",
    "SQLITE_CORRUPT": "its file is damaged: restore a back-up",
    "SQLITE_NOTADB": "its file is no database: restore a back-up",
}
"""States of SQLite, by the beginning of their names, that are no fault of a statement."""
BUSY_MILLISECONDS = 30_000
"""How long a writer waits for another one before it gives up."""
_WRITES = "learnd_writes"
_BOUND_VALUES = 500
"""Values in one IN list; databases limit the parameters of a statement."""


class StoreUnavailable(LearndError):
    """The database is locked for too long, full, damaged, or not there; nothing was changed.

    The message holds neither statements nor values: people and logs get it as it is.
    """

    def __init__(self, state: str) -> None:
        super().__init__(
            f"the store cannot be used: {state}; nothing was changed, try again when that is over"
        )
        self.state = state


class StatementRefused(Exception):
    """The database refused a statement, which is a defect in learnd. The message holds neither of them."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"the store refused a statement ({problem})")


class ConstraintViolated(StatementRefused):
    """A change would break a constraint of the tables."""


def create_sqlite_engine(path: Path, *, foreign_keys: bool = True) -> Engine:
    """Connections to the database at `path`: durable, with many readers beside one writer.

    `foreign_keys` is off only for migrations, which rebuild tables that others refer to.
    """
    engine = create_engine(URL.create("sqlite", database=str(path)), hide_parameters=True)
    event.listen(engine, "handle_error", _translate_error)

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


def _translate_error(context: ExceptionContext) -> Exception | None:
    """Return the error to raise in place of SQLAlchemy's, whose message quotes statements and values."""
    original, wrapped = context.original_exception, context.sqlalchemy_exception
    if wrapped is None:
        return None
    if not isinstance(wrapped, DBAPIError):
        return StatementRefused(f"{type(original).__name__}: {original}")
    if isinstance(wrapped, IntegrityError):
        return ConstraintViolated(type(original).__name__)
    name = getattr(original, "sqlite_errorname", None) or type(original).__name__
    state = next((words for known, words in STATES.items() if name.startswith(known)), None)
    if state is None and isinstance(wrapped, OperationalError) and name != "SQLITE_ERROR":
        state = name
    return StatementRefused(name) if state is None else StoreUnavailable(state)


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
