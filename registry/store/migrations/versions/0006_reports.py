"""Reports say by which thresholds and for which reason they came to their verdict; cycles, whether Phoenix
has what they measured.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_JSON = sa.JSON(none_as_null=True)
_CYCLES = sa.table("cycles", sa.column("id", sa.String()), sa.column("report", _JSON))
_CONDITIONS = {"PROMOTE": "better", "REJECT": "not better", "INCONCLUSIVE": "too few items"}


def upgrade() -> None:
    op.add_column("cycles", sa.Column("published_at", sa.DateTime(timezone=True)))
    op.add_column("cycles", sa.Column("compare_path", sa.String()))
    # What ended before is not told to Phoenix now.
    op.execute("UPDATE cycles SET published_at = updated_at WHERE state IN ('DONE', 'FAILED')")
    connection = op.get_bind()
    for cycle in connection.execute(sa.select(_CYCLES).where(_CYCLES.c.report.is_not(None))).all():
        if cycle.report["schema_version"] == 1:
            anew = sa.update(_CYCLES).where(_CYCLES.c.id == cycle.id).values(report=_second(cycle.report))
            connection.execute(anew)


def _second(report: dict[str, Any]) -> dict[str, Any]:
    """The report of a time when one look decided, by accuracy alone; its thresholds were not kept."""
    kept = {name: value for name, value in report.items() if name != "regression"}
    condition = "regression" if report["regression"] else _CONDITIONS[report["verdict"]]
    return kept | {
        "schema_version": 2,
        "gate": {"rule": "one-look"},
        "condition": condition,
        "comparisons": [_comparison(each) for each in report["comparisons"]],
    }


def _comparison(found: dict[str, Any]) -> dict[str, Any]:
    n = found["n"]
    return found | {"effective_n": n, "effect": (found["gained"] - found["lost"]) / n if n else 0.0}
