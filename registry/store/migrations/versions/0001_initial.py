"""The first tables.

A revision never imports the tables of today: it must go on making those of its own day.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_TIME = sa.DateTime(timezone=True)
_JSON = sa.JSON(none_as_null=True)
_STATE = sa.String(length=16)


def upgrade() -> None:
    _targets()
    _mirror()
    _cycles()
    _versions()
    _audit()


def _targets() -> None:
    op.create_table(
        "targets",
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("held", sa.Boolean(), nullable=False),
        sa.Column("held_reason", sa.Text()),
        sa.Column("held_by", sa.String()),
        sa.Column("held_at", _TIME),
        sa.Column("window_start", _TIME),
        sa.Column("window_end", _TIME),
        sa.Column("feedback_changes", sa.Integer(), nullable=False),
        sa.Column("last_poll_at", _TIME),
        sa.Column("last_poll_error", sa.Text()),
        sa.Column("last_cycle_at", _TIME),
        sa.Column("base_digest", sa.String()),
        sa.Column("last_version_number", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("target", name="pk_targets"),
    )


def _mirror() -> None:
    op.create_table(
        "mirror_states",
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("state", _JSON, nullable=False),
        sa.ForeignKeyConstraint(["target"], ["targets.target"], name="fk_mirror_states_target"),
        sa.PrimaryKeyConstraint("target", name="pk_mirror_states"),
    )
    op.create_table(
        "mirror_spans",
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("span_id", sa.String(), nullable=False),
        sa.Column("trace_id", sa.String(), nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("span", _JSON, nullable=False),
        sa.ForeignKeyConstraint(["target"], ["targets.target"], name="fk_mirror_spans_target"),
        sa.PrimaryKeyConstraint("target", "span_id", name="pk_mirror_spans"),
    )
    op.create_index("ix_mirror_spans_target_started_at", "mirror_spans", ["target", "started_at"])
    op.create_index("ix_mirror_spans_target_trace_id", "mirror_spans", ["target", "trace_id"])
    op.create_table(
        "mirror_annotations",
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("level", sa.String(), nullable=False),
        sa.Column("subject_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("identifier", sa.String(), nullable=False),
        sa.Column("annotation", _JSON, nullable=False),
        sa.ForeignKeyConstraint(["target"], ["targets.target"], name="fk_mirror_annotations_target"),
        sa.PrimaryKeyConstraint(
            "target", "level", "subject_id", "name", "identifier", name="pk_mirror_annotations"
        ),
    )


def _cycles() -> None:
    op.create_table(
        "cycles",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("state", _STATE, nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.Column("trigger", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("verdict", sa.String()),
        sa.Column("counts", _JSON, nullable=False),
        sa.Column("snapshot_id", sa.String()),
        sa.Column("plan", _JSON),
        sa.Column("version_id", sa.String()),
        sa.Column("report", _JSON),
        sa.ForeignKeyConstraint(["target"], ["targets.target"], name="fk_cycles_target"),
        sa.PrimaryKeyConstraint("id", name="pk_cycles"),
    )
    op.create_index("ix_cycles_target_started_at", "cycles", ["target", "started_at"])
    unfinished = sa.text("state IN ('EVALUATING', 'EXTRACTING', 'PROMOTING', 'SELECTING', 'TRAINING')")
    op.create_index(
        "uq_cycles_one_unfinished",
        "cycles",
        ["target"],
        unique=True,
        sqlite_where=unfinished,
        postgresql_where=unfinished,
    )


def _versions() -> None:
    op.create_table(
        "versions",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", _STATE, nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("files", _JSON, nullable=False),
        sa.Column("base_model", sa.String(), nullable=False),
        sa.Column("base_digest", sa.String(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("cycle_id", sa.String(), nullable=False),
        sa.Column("snapshot_id", sa.String(), nullable=False),
        sa.Column("plan_id", sa.String(), nullable=False),
        sa.Column("parent_id", sa.String()),
        sa.Column("replaced_id", sa.String()),
        sa.Column("code_version", sa.String(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("activated_at", _TIME),
        sa.Column("retired_at", _TIME),
        sa.Column("wanted", sa.Boolean(), nullable=False),
        sa.Column("drain_until", _TIME),
        sa.Column("files_removed_at", _TIME),
        sa.ForeignKeyConstraint(["cycle_id"], ["cycles.id"], name="fk_versions_cycle_id"),
        sa.ForeignKeyConstraint(["parent_id"], ["versions.id"], name="fk_versions_parent_id"),
        sa.ForeignKeyConstraint(["replaced_id"], ["versions.id"], name="fk_versions_replaced_id"),
        sa.ForeignKeyConstraint(["target"], ["targets.target"], name="fk_versions_target"),
        sa.PrimaryKeyConstraint("id", name="pk_versions"),
        sa.UniqueConstraint("cycle_id", name="uq_versions_cycle_id"),
        sa.UniqueConstraint("target", "number", name="uq_versions_target_number"),
    )
    active = sa.text("state = 'ACTIVE'")
    op.create_index(
        "uq_versions_one_active",
        "versions",
        ["target"],
        unique=True,
        sqlite_where=active,
        postgresql_where=active,
    )


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["target"], ["targets.target"], name="fk_audit_target"),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_index("ix_audit_target_id", "audit", ["target", "id"])
