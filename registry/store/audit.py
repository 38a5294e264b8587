"""The audit log: written by every act of an operator's interest, in the act's transaction."""

from datetime import datetime

from sqlalchemy import Connection, insert, select

from registry.audit import Action, AuditEntry
from registry.store import tables
from registry.store.database import Database, lock_target


def write_audit(
    connection: Connection,
    *,
    now: datetime,
    actor: str,
    action: Action,
    target: str,
    subject: str,
    detail: str,
) -> None:
    connection.execute(
        insert(tables.audit).values(
            at=now, actor=actor, action=action, target=target, subject=subject, detail=detail
        )
    )


class AuditRecords(Database):
    """The acts of operators and of learnd, newest first."""

    def record_act(
        self, *, now: datetime, actor: str, action: Action, target: str, subject: str, detail: str
    ) -> None:
        """Log an act that changed files, not the store."""
        with self._writing() as connection:
            lock_target(connection, target)
            write_audit(
                connection,
                now=now,
                actor=actor,
                action=action,
                target=target,
                subject=subject,
                detail=detail,
            )

    def audit(self, target: str | None = None, limit: int = 100) -> list[AuditEntry]:
        """The newest `limit` entries, of one target or of all."""
        newest = select(tables.audit).order_by(tables.audit.c.id.desc()).limit(limit)
        if target is not None:
            newest = newest.where(tables.audit.c.target == target)
        with self._reading() as connection:
            return [AuditEntry.model_validate(dict(row)) for row in connection.execute(newest).mappings()]
