"""A target remembers where its first holdout began, and which share of its sessions stays reserved."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("targets", sa.Column("window_first", sa.DateTime(timezone=True)))
    op.add_column("targets", sa.Column("window_retained_to", sa.Float()))
    # What is older than the window that stands may have been trained on.
    op.execute(
        "UPDATE targets SET window_first = window_start, window_retained_to = 1.0 "
        "WHERE window_start IS NOT NULL"
    )
