"""A store that fails: callers and logs get one sentence, without statements and without their values."""

import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from registry.store.database import BUSY_MILLISECONDS, StatementRefused, StoreUnavailable
from registry.store.store import Store
from tests.integration.daemon.api.test_operators import Daemon
from tests.integration.registry.store.batch_support import TARGET
from tests.integration.registry.store.store_support import NOW

SECRET = "the merger with Initech"
WORDS = ("SELECT", "INSERT", "UPDATE", "parameters", "sqlalche", "held_reason", SECRET)


def damage(database: Path) -> None:
    """Overwrite every page but the first, as a failing disk may."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = database.stat().st_size
    with database.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))


def forbid_insertion(database: Path) -> None:
    """Make each insertion break a constraint."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TRIGGER no BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no'); END")


def drop_table(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("ALTER TABLE audit RENAME TO elsewhere")


@pytest.mark.parametrize(("harm", "status"), [(damage, 503), (forbid_insertion, 500), (drop_table, 500)])
def test_a_caller_gets_one_sentence_and_the_log_no_values(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: Callable[[Path], None], status: int
) -> None:
    daemon = Daemon(tmp_path)
    daemon.store.hold(TARGET, "ann", SECRET, NOW)
    daemon.store.close()
    harm(tmp_path / "learnd.db")
    with caplog.at_level(logging.DEBUG), daemon.as_ci() as client:
        answer = client.post(f"/api/v1/targets/{TARGET}/hold", json={"reason": SECRET})
    assert answer.status_code == status
    said = answer.text + "".join(logging.Formatter().format(record) for record in caplog.records)
    assert not [word for word in WORDS if word in said]
    daemon.store.close()


def test_a_store_that_another_process_holds_is_unavailable_and_says_so(tmp_path: Path) -> None:
    assert BUSY_MILLISECONDS > 1000  # Waiting as long as a daemon would is not this test's business.
    with Store.open(tmp_path, NOW) as store, closing(sqlite3.connect(tmp_path / "learnd.db")) as other:
        with store._reading() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout = 1")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="another process holds the database"):
            store.hold(TARGET, "ann", SECRET, NOW)
        other.rollback()


def test_a_refused_statement_names_neither_itself_nor_its_values(tmp_path: Path) -> None:
    with Store.open(tmp_path, NOW) as store:
        drop_table(tmp_path / "learnd.db")
        with pytest.raises(StatementRefused) as refused:
            store.hold(TARGET, "ann", SECRET, NOW)
    chain = f"{refused.value} {refused.value.__cause__!r}"
    assert not [word for word in WORDS if word in chain]


def test_a_backup_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with Store.open(tmp_path, NOW) as store:
        copy = store.back_up(NOW)
        copy.with_suffix(".tmp").mkdir()
        with pytest.raises(StoreUnavailable, match="copying it to"):
            store.back_up(NOW)
