"""The state of each target: its hold, its holdout window, its base model."""

from datetime import datetime, timedelta

from sqlalchemy import Connection, select, update

from extractors.dataset.holdout_split import Window
from extractors.errors import LearndError
from registry.store.audit import write_audit
from registry.store.database import Database, lock_target
from registry.store.tables import targets
from registry.targets import TargetState


class TargetHeld(LearndError):
    """Automatic promotion was asked for while an operator's hold stands."""

    def __init__(self, state: TargetState) -> None:
        super().__init__(
            f"{state.target} is held by {state.held_by} ({state.held_reason}); "
            "release it, or activate a version as an operator"
        )


class TargetRecords(Database):
    """The state of each target."""

    def target_state(self, target: str) -> TargetState:
        """Return the target's state; the defaults for a target that the store does not know."""
        with self._reading() as connection:
            row = (
                connection.execute(select(targets).where(targets.c.target == target)).mappings().one_or_none()
            )
        return TargetState(target=target) if row is None else TargetState.model_validate(dict(row))

    def hold(self, target: str, actor: str, reason: str, now: datetime) -> None:
        """Keep automatic promotion off until the target is released."""
        with self._writing() as connection:
            write_hold(connection, target, actor, reason, now)
            write_audit(
                connection, now=now, actor=actor, action="hold", target=target, subject=target, detail=reason
            )

    def release(self, target: str, actor: str, now: datetime) -> None:
        """Allow automatic promotion again; nothing happens where there is no hold."""
        with self._writing() as connection:
            state = lock_target(connection, target)
            if not state.held:
                return
            free = {"held": False, "held_reason": None, "held_by": None, "held_at": None}
            connection.execute(update(targets).where(targets.c.target == target).values(free))
            detail = f"was held by {state.held_by}: {state.held_reason}"
            write_audit(
                connection,
                now=now,
                actor=actor,
                action="release",
                target=target,
                subject=target,
                detail=detail,
            )


def write_window(connection: Connection, target: str, window: Window) -> None:
    lock_target(connection, target)
    fields = {f"window_{name}": value for name, value in window.model_dump().items()}
    connection.execute(update(targets).where(targets.c.target == target).values(fields))


def put_last_cycle_before(connection: Connection, target: str, now: datetime) -> datetime | None:
    """Return when the target's last cycle began: before `now`, also where the clock was set back since.

    A time that lies later is corrected, so that what happens now counts as newer than that cycle.
    """
    began = lock_target(connection, target).last_cycle_at
    if began is None or began < now:
        return began
    before = now - timedelta(microseconds=1)
    connection.execute(update(targets).where(targets.c.target == target).values(last_cycle_at=before))
    return before


def write_hold(connection: Connection, target: str, actor: str, reason: str, now: datetime) -> None:
    lock_target(connection, target)
    connection.execute(
        update(targets)
        .where(targets.c.target == target)
        .values(held=True, held_reason=reason, held_by=actor, held_at=now)
    )
