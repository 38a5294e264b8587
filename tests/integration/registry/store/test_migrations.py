"""A database is made, backed up and migrated, from any folder, or refused with a clear reason."""

import json
import logging
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from extractors.phoenix.mirror import MirrorChange, MirrorState
from registry.cycles import ReportSummary
from registry.store import tables
from registry.store.database import create_sqlite_engine
from registry.store.migrate import (
    MIGRATIONS,
    DatabaseTooNew,
    DatabaseUnreadable,
    MigrationFailed,
    list_revisions,
    migrate,
)
from registry.store.store import Store
from tests.integration.registry.store.store_support import NOW, SOON, a_candidate, a_span, promote

T = "acme/routing"

ADD_A_COLUMN = """
import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

def upgrade():
    # Rebuilds a table that others refer to, as SQLite needs for most changes.
    with op.batch_alter_table("targets", recreate="always") as targets:
        targets.add_column(sa.Column("colour", sa.String(), server_default="blue", nullable=False))
"""
LOSE_ROWS = """
from alembic import op

revision = "0008"
down_revision = "0007"

def upgrade():
    op.execute("DELETE FROM targets")
"""
CRASH = """
import os, signal
from alembic import op

revision = "0008"
down_revision = "0007"

def upgrade():
    op.execute("DELETE FROM audit")
    op.execute("CREATE TABLE half (id INTEGER)")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def newer_migrations(tmp_path: Path, revision: str) -> Path:
    """The migrations of a learnd to come, with one more revision."""
    folder = tmp_path / "migrations 100%"
    shutil.copytree(MIGRATIONS, folder)
    (folder / "versions" / "0008_next.py").write_text(revision)
    return folder


def filled_store(tmp_path: Path) -> Path:
    """The database of a store in use."""
    with Store.open(tmp_path / "data", NOW) as store:
        promote(store, a_candidate(store, T), None)
        store.apply_mirror(T, MirrorChange(state=MirrorState(), spans=(a_span("a"),)), NOW)
    return tmp_path / "data" / "learnd.db"


def rows(database: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def test_the_names_of_the_migrations_tell_their_order() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    chain = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert list_revisions(MIGRATIONS) == chain[::-1]


def test_the_migrations_make_the_tables_that_the_code_uses(tmp_path: Path) -> None:
    Store.open(tmp_path, NOW).close()
    engine = create_sqlite_engine(tmp_path / "learnd.db")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []
    engine.dispose()


def test_the_migrations_make_the_partial_indexes_that_the_code_relies_on(tmp_path: Path) -> None:
    Store.open(tmp_path, NOW).close()
    dialect = create_sqlite_engine(Path(":memory:")).dialect
    made = dict(
        rows(tmp_path / "learnd.db", "SELECT name, sql FROM sqlite_master WHERE sql LIKE '% WHERE %'")
    )
    meant = {
        index.name: str(CreateIndex(index).compile(dialect=dialect))
        for table in tables.metadata.tables.values()
        for index in table.indexes
        if index.dialect_options["sqlite"]["where"] is not None
    }
    assert made == meant
    assert set(made) == {"uq_batches_one_waiting", "uq_cycles_one_unfinished", "uq_versions_one_active"}


def test_the_tables_can_be_made_in_postgresql_with_their_partial_indexes() -> None:
    dialect = postgresql.dialect()
    for table in tables.metadata.sorted_tables:
        assert "CREATE TABLE" in str(CreateTable(table).compile(dialect=dialect))
    partial = [
        str(CreateIndex(index).compile(dialect=dialect))
        for table in (tables.batches, tables.cycles, tables.versions)
        for index in table.indexes
        if index.unique
    ]
    assert len(partial) == 3
    assert all(" WHERE state" in statement for statement in partial)


def test_a_store_opened_again_holds_what_it_held_and_makes_no_backup(tmp_path: Path) -> None:
    database = filled_store(tmp_path)
    with Store.open(database.parent, SOON) as store:
        active = store.find_active_version(T)
        assert active is not None
        assert active.activated_at == NOW
        assert store.read_mirror(T)[0] == [a_span("a")]
    assert not (database.parent / "backups").exists()


def test_the_database_survives_power_loss_and_lets_readers_beside_a_writer(tmp_path: Path) -> None:
    engine = create_sqlite_engine(tmp_path / "learnd.db")
    with engine.connect() as connection:

        def pragma(name: str) -> object:
            return connection.exec_driver_sql(f"PRAGMA {name}").scalar()

        assert pragma("journal_mode") == "wal"
        assert pragma("synchronous") == 2  # FULL
        assert pragma("foreign_keys") == 1
        assert pragma("busy_timeout") == 30_000
    engine.dispose()


def test_an_older_database_is_backed_up_and_then_migrated_with_its_data(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database, backups = filled_store(tmp_path), tmp_path / "data" / "backups"
    caplog.set_level(logging.INFO, logger="registry.store.backup")
    copy = migrate(database, backups, SOON, newer_migrations(tmp_path, ADD_A_COLUMN))
    assert copy == backups / "learnd-20260301T120500000000Z.db"
    assert str(copy) in caplog.text
    assert rows(database, "SELECT target, colour FROM targets") == [(T, "blue")]
    assert rows(database, "SELECT id, state FROM versions") == [("acme.routing.v1", "ACTIVE")]
    assert rows(database, "SELECT span_id FROM mirror_spans") == [("a",)]
    assert rows(database, "SELECT version_num FROM alembic_version") == [("0008",)]
    # The back-up is a whole database of its own, at the old revision.
    restored = tmp_path / "restored"
    restored.mkdir()
    shutil.copy(copy, restored / "learnd.db")
    with Store.open(restored, SOON) as store:
        assert [version.id for version in store.versions(T)] == ["acme.routing.v1"]


def test_a_database_of_a_newer_learnd_is_refused_untouched(tmp_path: Path) -> None:
    database, backups = filled_store(tmp_path), tmp_path / "data" / "backups"
    migrate(database, backups, NOW, newer_migrations(tmp_path, ADD_A_COLUMN))
    with pytest.raises(DatabaseTooNew, match=r"learnd\.db is at revision 0008.*backups"):
        Store.open(database.parent, SOON)
    assert rows(database, "SELECT version_num FROM alembic_version") == [("0008",)]
    assert len(list(backups.iterdir())) == 1


def test_a_migration_that_would_orphan_rows_is_undone(tmp_path: Path) -> None:
    database = filled_store(tmp_path)
    with pytest.raises(MigrationFailed):
        migrate(database, tmp_path / "backups", NOW, newer_migrations(tmp_path, LOSE_ROWS))
    assert rows(database, "SELECT version_num FROM alembic_version") == [("0007",)]
    assert rows(database, "SELECT target FROM targets") == [(T,)]


def test_a_migration_killed_in_the_middle_leaves_the_old_database(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    database = filled_store(tmp_path)
    script = (
        "import sys; from pathlib import Path; from datetime import datetime, UTC\n"
        "from registry.store.migrate import migrate\n"
        "database, backups, migrations = map(Path, sys.argv[1:])\n"
        "migrate(database, backups, datetime.now(UTC), migrations)"
    )
    arguments = [database, tmp_path / "backups", newer_migrations(tmp_path, CRASH)]
    child = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(pytestconfig.rootpath)},
        timeout=60,
        check=False,
    )
    assert child.returncode == -9
    with Store.open(database.parent, SOON) as store:
        assert [entry.action for entry in store.audit(T)] == ["activate"]
    assert rows(database, "SELECT name FROM sqlite_master WHERE name = 'half'") == []


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "learnd.db").write_bytes(b"not a database, but long enough to look at" * 50)
    with pytest.raises(DatabaseUnreadable, match=r"learnd\.db: its file is no database"):
        Store.open(tmp_path, NOW)


def test_only_the_newest_five_backups_stay(tmp_path: Path) -> None:
    with Store.open(tmp_path, NOW) as store:
        copies = [store.back_up(NOW + timedelta(days=day)) for day in range(7)]
    assert sorted((tmp_path / "backups").iterdir()) == copies[2:]


def migrations_until(tmp_path: Path, revision: str) -> Path:
    """The migrations of an earlier learnd."""
    folder = tmp_path / f"until-{revision}"
    shutil.copytree(MIGRATIONS, folder)
    for script in (folder / "versions").glob("[0-9]*.py"):
        if script.name[:4] > revision:
            script.unlink()
    return folder


def test_a_cycle_of_the_time_of_one_method_keeps_its_plan_as_a_single_stage(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    database = tmp_path / "data" / "learnd.db"
    migrate(database, tmp_path / "backups", NOW, migrations_until(tmp_path, "0001"))
    plan = {
        "method": "sft",
        "reason": "60 examples",
        "snapshot_id": "snap",
        "base_model": "tiny",
        "base_digest": "base1",
        "hyperparameters": {"epochs": 2.0},
        "prefix_shared": True,
    }
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "INSERT INTO targets (target, held, feedback_changes, last_version_number) VALUES (?, 0, 0, 0)",
            (T,),
        )
        connection.execute(
            'INSERT INTO cycles (id, target, state, started_at, updated_at, "trigger", reason, counts, plan) '
            "VALUES ('c', ?, 'DONE', '2026-03-01', '2026-03-01', 'operator', '', '{}', ?)",
            (T, json.dumps(plan)),
        )
    with Store.open(tmp_path / "data", SOON) as store:
        cycle = store.cycle("c")
    assert cycle.plan is not None
    assert cycle.plan.method == "sft"
    assert cycle.plan.stages[0].hyperparameters.epochs == 2
    assert cycle.training == ()


def test_a_window_of_the_time_before_there_was_a_retention_set_counts_as_the_first(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    database = tmp_path / "data" / "learnd.db"
    migrate(database, tmp_path / "backups", NOW, migrations_until(tmp_path, "0004"))
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "INSERT INTO targets (target, held, feedback_changes, last_version_number, window_start, "
            "window_end) VALUES (?, 0, 0, 0, '2026-02-01 00:00:00', '2026-02-08 00:00:00'), "
            "('acme/new', 0, 0, 0, NULL, NULL)",
            (T,),
        )
    with Store.open(tmp_path / "data", SOON) as store:
        window = store.target_state(T).window
        assert store.target_state("acme/new").window is None
    assert window is not None
    assert (window.first, window.retained_to) == (window.start, 1.0)
    assert window.start == datetime(2026, 2, 1, tzinfo=UTC)


def test_a_report_of_the_time_of_one_look_says_what_it_decided_by_and_is_not_told_to_phoenix(
    tmp_path: Path,
) -> None:
    (tmp_path / "data").mkdir()
    database = tmp_path / "data" / "learnd.db"
    migrate(database, tmp_path / "backups", NOW, migrations_until(tmp_path, "0005"))
    compared = {
        "against": "base",
        "n": 80,
        "gained": 20,
        "lost": 4,
        "p_value": 0.001,
        "p_worse": 1.0,
        "interval": [0.1, 0.3],
        "smallest_effect": 0.1,
    }
    side = {"accuracy": 0.5, "valid_rate": 1.0, "latency_ms": 20.0, "repeated_rejected": 0, "answers": []}
    report = {
        "schema_version": 1,
        "snapshot_id": "s",
        "holdout_size": 80,
        "gold_size": 80,
        "rejected_without_correction": 0,
        "sides": [side | {"name": "base"}, side | {"name": "acme.routing.v1"}],
        "comparisons": [compared],
        "live": "base",
        "verdict": "PROMOTE",
        "reason": "better than what is live",
        "regression": False,
    }
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "INSERT INTO targets (target, held, feedback_changes, last_version_number) VALUES (?, 0, 0, 0)",
            (T,),
        )
        connection.execute(
            "INSERT INTO cycles (id, target, state, started_at, updated_at, trigger, reason, counts, report) "
            "VALUES ('c', ?, 'DONE', '2026-01-02', '2026-01-02', 'operator', '', '{}', ?)",
            (T, json.dumps(report)),
        )
    with Store.open(tmp_path / "data", SOON) as store:
        cycle = store.cycle("c")
        assert store.find_unpublished_cycles(T) == []
        [listed] = store.cycles(T)
    assert cycle.report is not None
    assert (cycle.report.condition, cycle.report.gate.rule) == ("better", "one-look")
    assert cycle.report.find_comparison("base").effect == 0.2
    assert listed.report is None
    assert listed.outcome == cycle.outcome == ReportSummary.from_report(cycle.report)


def test_a_cycle_whose_counts_and_figures_were_stored_in_another_shape_loads_and_keeps_every_key(
    tmp_path: Path,
) -> None:
    (tmp_path / "data").mkdir()
    database = tmp_path / "data" / "learnd.db"
    migrate(database, tmp_path / "backups", NOW)
    counts = {"reviewed": {"approved": 60, "corrected": 2}, "train": {"sft": 44}, "imported": 3}
    figures = {
        "method": "sft",
        "examples": 44,
        "validation": [{"step": 6, "loss": 0.8, "figures": {"token_accuracy": 0.7}}],
        "best_step": 6,
        "seconds": 71.0,
        "device": "cpu",
    }
    training = [
        {"method": "sft", "run": 0, "left_out": "", "figures": figures},
        {"method": "dpo", "run": 0, "left_out": "too few pairs", "figures": {}},
    ]
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "INSERT INTO targets (target, held, feedback_changes, last_version_number) VALUES (?, 0, 0, 0)",
            (T,),
        )
        connection.execute(
            "INSERT INTO cycles (id, target, state, started_at, updated_at, trigger, reason, counts, "
            "training) VALUES ('c', ?, 'DONE', '2026-03-01', '2026-03-01', 'operator', '', ?, ?)",
            (T, json.dumps(counts), json.dumps(training)),
        )
    with Store.open(tmp_path / "data", SOON) as store:
        cycle = store.cycle("c")
    assert cycle.counts.reviewed is not None
    assert (cycle.counts.reviewed.total, cycle.counts.reviewed.rejected) == (62, 0)
    assert (cycle.counts.train, cycle.counts.holdout, cycle.counts.dropped) == ({"sft": 44}, None, {})
    sft, dpo = cycle.training
    assert (sft.figures.examples, sft.figures.seconds, sft.figures.peak_memory_bytes) == (44, 71.0, None)
    assert sft.figures.kept_validation is not None
    assert sft.figures.kept_validation.loss == 0.8
    assert dpo.figures.seconds is None
    assert cycle.model_dump(mode="json")["counts"] == counts
    assert cycle.model_dump(mode="json")["training"] == training
