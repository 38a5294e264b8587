"""A plan has stages, and a cycle keeps how each one's training went."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_JSON = sa.JSON(none_as_null=True)
_CYCLES = sa.table("cycles", sa.column("id", sa.String()), sa.column("plan", _JSON))


def upgrade() -> None:
    op.add_column("cycles", sa.Column("training", _JSON, nullable=False, server_default="[]"))
    connection = op.get_bind()
    for cycle in connection.execute(sa.select(_CYCLES).where(_CYCLES.c.plan.is_not(None))).all():
        if "stages" not in cycle.plan:
            staged = sa.update(_CYCLES).where(_CYCLES.c.id == cycle.id).values(plan=_staged(cycle.plan))
            connection.execute(staged)


def _staged(plan: dict[str, Any]) -> dict[str, Any]:
    """The plan of a time when there was one method, SFT."""
    kept = {name: value for name, value in plan.items() if name not in {"method", "hyperparameters"}}
    stage = {"method": plan["method"], "data": "sft", "hyperparameters": plan["hyperparameters"]}
    return kept | {"stages": [stage]}
