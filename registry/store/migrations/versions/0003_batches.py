"""Batches of synthetic examples, their items, and the decisions about them."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_STATE = sa.String(16)
_TIME = sa.DateTime(timezone=True)
_JSON = sa.JSON(none_as_null=True)


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("state", _STATE, nullable=False),
        sa.Column("cycle_id", sa.String(), nullable=False),
        sa.Column("need", sa.Text(), nullable=False),
        sa.Column("provenance", _JSON, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME),
        sa.Column("ended_by", sa.String()),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["target"], ["targets.target"], name="fk_batches_target"),
        sa.ForeignKeyConstraint(["cycle_id"], ["cycles.id"], name="fk_batches_cycle_id"),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
    )
    op.create_index("ix_batches_target_created_at", "batches", ["target", "created_at"])
    waiting = sa.text("state = 'WAITING'")
    op.create_index(
        "uq_batches_one_waiting",
        "batches",
        ["target", "kind"],
        unique=True,
        sqlite_where=waiting,
        postgresql_where=waiting,
    )
    op.create_table(
        "batch_items",
        sa.Column("batch_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", _STATE, nullable=False),
        sa.Column("example", _JSON, nullable=False),
        sa.Column("diversity", sa.Float(), nullable=False),
        sa.Column("demonstrations", _JSON, nullable=False),
        sa.Column("edited", _JSON),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("decided_by", sa.String()),
        sa.Column("decided_at", _TIME),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_batch_items_batch_id"),
        sa.PrimaryKeyConstraint("batch_id", "number", name="pk_batch_items"),
    )
    op.create_index("ix_batch_items_batch_id_state", "batch_items", ["batch_id", "state"])
