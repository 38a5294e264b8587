"""Which targets may need a cycle: one query, however many targets wait for nothing."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Exists, Select, and_, exists, func, literal, or_, select

from registry.batches import BatchState, ItemState
from registry.store.cycles import LOOKS_AGAIN
from registry.store.database import Database
from registry.store.tables import UNFINISHED, audit, batch_items, batches, cycles, targets, versions
from registry.targets import TargetDemand
from registry.versions import VersionState

NEWEST_ACTS = 10_000
"""How many rows of the audit log a look at all targets reads for operators' wishes."""


class DemandRecords(Database):
    """The demand for cycles of all targets."""

    def find_demands(self, now: datetime, *, idle: bool = False) -> list[TargetDemand]:
        """Return the demand of each target that has any; with `idle`, of each target that the store knows.

        A version on probation alone is no demand. The targets whose cycles began first come first.
        """
        query = _select_demands(now)
        if not idle:
            query = query.where(
                or_(
                    targets.c.feedback_changes > 0,
                    _is_unfinished(),
                    _is_asked_lately(now),
                    _is_batch_decided(now),
                )
            )
        with self._reading() as connection:
            return [TargetDemand.model_validate(dict(row)) for row in connection.execute(query).mappings()]

    def find_demand(self, target: str, now: datetime) -> TargetDemand:
        """Return the target's demand; the defaults for a target that the store does not know."""
        with self._reading() as connection:
            row = (
                connection.execute(_select_demands(now).where(targets.c.target == target))
                .mappings()
                .one_or_none()
            )
        return TargetDemand(target=target) if row is None else TargetDemand.model_validate(dict(row))


def _select_demands(now: datetime) -> Select[Any]:
    trained = select(cycles.c.updated_at).where(cycles.c.target == targets.c.target, ~LOOKS_AGAIN)
    last = trained.order_by(cycles.c.started_at.desc(), cycles.c.id.desc()).limit(1).scalar_subquery()
    waits = exists().where(versions.c.target == targets.c.target, versions.c.state == VersionState.PROBATION)
    began = select(func.min(cycles.c.started_at)).where(cycles.c.target == targets.c.target, _unfinished())
    return select(
        targets.c.target,
        targets.c.feedback_changes,
        targets.c.last_cycle_at,
        last.label("last_cycle_ended_at"),
        _is_unfinished().label("unfinished"),
        waits.label("on_probation"),
        _is_asked(now).label("asked"),
        _is_batch_decided(now).label("batch_decided"),
    ).order_by(began.scalar_subquery().nulls_last(), targets.c.target)


def _unfinished() -> ColumnElement[bool]:
    # Written out as in the index, which SQLite uses for these very words only.
    return cycles.c.state.in_(
        [literal(state, cycles.c.state.type, literal_execute=True) for state in sorted(UNFINISHED)]
    )


def _is_unfinished() -> ColumnElement[bool]:
    return targets.c.target.in_(select(cycles.c.target).where(_unfinished()))


def _is_asked_lately(now: datetime) -> ColumnElement[bool]:
    newest = select(func.max(audit.c.id)).scalar_subquery()
    return _is_asked(now).where(audit.c.id > newest - NEWEST_ACTS)


def _is_asked(now: datetime) -> Exists:
    # What lies in the future was done, and led to a cycle, before the clock was set back.
    return exists().where(
        audit.c.target == targets.c.target,
        audit.c.action == "ask for a cycle",
        audit.c.at <= now,
        or_(targets.c.last_cycle_at.is_(None), audit.c.at > targets.c.last_cycle_at),
    )


def _is_batch_decided(now: datetime) -> ColumnElement[bool]:
    approved = exists().where(
        batch_items.c.batch_id == batches.c.id, batch_items.c.state == ItemState.APPROVED
    )
    ended = or_(batches.c.state == BatchState.DECIDED, and_(batches.c.state == BatchState.EXPIRED, approved))
    return exists().where(
        batches.c.target == targets.c.target,
        ended,
        batches.c.ended_at <= now,
        or_(targets.c.last_cycle_at.is_(None), batches.c.ended_at >= targets.c.last_cycle_at),
    )
