"""The tables, and the two column types that keep times in UTC and values as JSON.

A change here needs a revision in `migrations/versions/`; a test compares the two. Columns
that hold a `Value` are named as its fields, so that a row validates into it.
"""

from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_jsonable_python
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Enum,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

from registry.batches import BatchState, ItemState
from registry.cycles import ENDED, CycleState
from registry.versions import VersionState


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, in UTC when it comes back: SQLite drops time zones.

    Raises ValueError for a datetime without a zone, whose meaning nobody could know later.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone; pass an aware datetime")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Json(TypeDecorator[Any]):
    """Pydantic values and containers as JSON; they come back plain, for a `Value` to validate."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def process_bind_param(self, value: Any, _dialect: Dialect) -> Any:
        return to_jsonable_python(value)


UNFINISHED = frozenset(CycleState) - ENDED

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _target(*, primary_key: bool = False) -> Column[str]:
    return Column("target", String, ForeignKey("targets.target"), primary_key=primary_key, nullable=False)


targets = Table(
    "targets",
    metadata,
    Column("target", String, primary_key=True),
    Column("held", Boolean, nullable=False),
    Column("held_reason", Text),
    Column("held_by", String),
    Column("held_at", UtcDateTime),
    Column("window_start", UtcDateTime),
    Column("window_end", UtcDateTime),
    Column("window_first", UtcDateTime),
    Column("window_retained_to", Float),
    Column("feedback_changes", Integer, nullable=False),
    Column("last_poll_at", UtcDateTime),
    Column("last_poll_error", Text),
    Column("last_cycle_at", UtcDateTime),
    Column("base_digest", String),
    Column("last_version_number", Integer, nullable=False),
)

mirror_states = Table(
    "mirror_states",
    metadata,
    _target(primary_key=True),
    Column("state", Json, nullable=False),
)

mirror_spans = Table(
    "mirror_spans",
    metadata,
    _target(primary_key=True),
    Column("span_id", String, primary_key=True),
    Column("trace_id", String, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("span", Json, nullable=False),
    Index(None, "target", "trace_id"),
    Index(None, "target", "started_at"),
)

mirror_annotations = Table(
    "mirror_annotations",
    metadata,
    _target(primary_key=True),
    Column("level", String, primary_key=True),
    Column("subject_id", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("identifier", String, primary_key=True),
    Column("annotation", Json, nullable=False),
)

cycles = Table(
    "cycles",
    metadata,
    Column("id", String, primary_key=True),
    _target(),
    Column("state", Enum(CycleState, native_enum=False, length=16), nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("trigger", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("verdict", String),
    Column("counts", Json, nullable=False),
    Column("snapshot_id", String),
    Column("plan", Json),
    Column("training", Json, nullable=False, server_default="[]"),
    Column("version_id", String),
    Column("report", Json),
    Column("outcome", Json),
    Column("published_at", UtcDateTime),
    Column("publish_tries", Integer, nullable=False, server_default="0"),
    Column("publish_problem", Text, nullable=False, server_default=""),
    Column("compare_path", String),
    Index(None, "target", "started_at"),
)
_unfinished = cycles.c.state.in_(sorted(UNFINISHED))
Index(
    "uq_cycles_one_unfinished",
    cycles.c.target,
    unique=True,
    sqlite_where=_unfinished,
    postgresql_where=_unfinished,
)

versions = Table(
    "versions",
    metadata,
    Column("id", String, primary_key=True),
    _target(),
    Column("number", Integer, nullable=False),
    Column("state", Enum(VersionState, native_enum=False, length=16), nullable=False),
    Column("path", String, nullable=False),
    Column("files", Json, nullable=False),
    Column("base_model", String, nullable=False),
    Column("base_digest", String, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("cycle_id", String, ForeignKey("cycles.id"), nullable=False),
    Column("snapshot_id", String, nullable=False),
    Column("plan_id", String, nullable=False),
    Column("parent_id", String, ForeignKey("versions.id")),
    Column("replaced_id", String, ForeignKey("versions.id")),
    Column("code_version", String, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("activated_at", UtcDateTime),
    Column("retired_at", UtcDateTime),
    Column("wanted", Boolean, nullable=False),
    Column("drain_until", UtcDateTime),
    Column("files_removed_at", UtcDateTime),
    UniqueConstraint("cycle_id"),
    UniqueConstraint("target", "number"),
)
_active = versions.c.state == VersionState.ACTIVE
Index(
    "uq_versions_one_active", versions.c.target, unique=True, sqlite_where=_active, postgresql_where=_active
)

batches = Table(
    "batches",
    metadata,
    Column("id", String, primary_key=True),
    _target(),
    Column("kind", String, nullable=False),
    Column("state", Enum(BatchState, native_enum=False, length=16), nullable=False),
    Column("cycle_id", String, ForeignKey("cycles.id"), nullable=False),
    Column("need", Text, nullable=False),
    Column("provenance", Json, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("ended_by", String),
    Column("reason", Text, nullable=False),
    Index(None, "target", "created_at"),
)
_waiting = batches.c.state == BatchState.WAITING
Index(
    "uq_batches_one_waiting",
    batches.c.target,
    batches.c.kind,
    unique=True,
    sqlite_where=_waiting,
    postgresql_where=_waiting,
)

batch_items = Table(
    "batch_items",
    metadata,
    Column("batch_id", String, ForeignKey("batches.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("state", Enum(ItemState, native_enum=False, length=16), nullable=False),
    Column("example", Json, nullable=False),
    Column("diversity", Float, nullable=False),
    Column("demonstrations", Json, nullable=False),
    Column("edited", Json),
    Column("reason", Text, nullable=False),
    Column("decided_by", String),
    Column("decided_at", UtcDateTime),
    Column("revision", Integer, nullable=False),
    Index(None, "batch_id", "state"),
)

notices = Table(
    "notices",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("uid", String, nullable=False),
    Column("event", String, nullable=False),
    _target(),
    Column("at", UtcDateTime, nullable=False),
    Column("details", Json, nullable=False),
    # An id that was given never comes back, or receivers would take news for old.
    sqlite_autoincrement=True,
)

notice_receivers = Table(
    "notice_receivers",
    metadata,
    Column("name", String, primary_key=True),
    Column("after_id", Integer, nullable=False),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("notice_id", Integer, ForeignKey("notices.id"), primary_key=True),
    Column("receiver", String, primary_key=True),
    Column("attempts", Integer, nullable=False),
    Column("next_try_at", UtcDateTime),
    Column("delivered_at", UtcDateTime),
    Column("problem", Text, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("actor", String, nullable=False),
    Column("action", String, nullable=False),
    _target(),
    Column("subject", String, nullable=False),
    Column("detail", Text, nullable=False),
    Index(None, "target", "id"),
)
