"""Cycles keep their report in short, so that lists need not read the whole; and why Phoenix has not got
what they measured.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_JSON = sa.JSON(none_as_null=True)
_CYCLES = sa.table(
    "cycles", sa.column("id", sa.String()), sa.column("report", _JSON), sa.column("outcome", _JSON)
)
_COMPARED = ("effect", "interval", "p_value", "n", "effective_n")


def upgrade() -> None:
    op.add_column("cycles", sa.Column("outcome", sa.JSON()))
    op.add_column("cycles", sa.Column("publish_tries", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("cycles", sa.Column("publish_problem", sa.Text(), nullable=False, server_default=""))
    connection = op.get_bind()
    judged = connection.execute(sa.select(_CYCLES.c.id).where(_CYCLES.c.report.is_not(None))).scalars().all()
    for cycle in judged:
        this = _CYCLES.c.id == cycle
        report = connection.execute(sa.select(_CYCLES.c.report).where(this)).scalar_one()
        connection.execute(sa.update(_CYCLES).where(this).values(outcome=_outcome(report)))


def _outcome(report: dict[str, Any]) -> dict[str, Any]:
    """Means were not weighted then."""
    compared = next(each for each in report["comparisons"] if each["against"] == report["live"])
    metric = compared.get("metric", "accuracy")
    means = {side["name"]: _mean(side, metric) for side in report["sides"]}
    return {
        **{name: compared[name] for name in _COMPARED},
        "live_version": report["live"],
        "metric": metric,
        "base": means[report["sides"][0]["name"]],
        "live": means[report["live"]],
        "candidate": means[report["sides"][-1]["name"]],
        "gold_size": report["gold_size"],
        "guards": {
            each["name"]: each["state"] for each in report.get("guards", ()) if each["state"] != "kept"
        },
    }


def _mean(side: dict[str, Any], metric: str) -> float:
    return float(side["accuracy"] if metric == "accuracy" else side.get("measures", {}).get(metric, 0.0))
