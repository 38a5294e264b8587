"""The outbox: notices written in the transaction of the act, and how far each receiver has been told."""

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, and_, delete, func, insert, or_, select, update

from registry.notices import LONGEST_PAUSE, DueNotice, Event, Notice
from registry.store.database import Database, lock_target
from registry.store.tables import deliveries, notice_receivers, notices


def write_notice(
    connection: Connection, event: Event, target: str, at: datetime, **details: str | int | None
) -> None:
    """Write a notice about the target, whose row exists. `details` are only ids and numbers."""
    connection.execute(
        insert(notices).values(uid=uuid4().hex, event=event, target=target, at=at, details=details)
    )


class NoticeRecords(Database):
    """Notices, and how far each receiver has been told."""

    def add_receiver(self, name: str) -> None:
        """Remember a receiver; one that is new is told of what happens from now on."""
        with self._writing() as connection:
            if connection.scalar(select(notice_receivers).where(notice_receivers.c.name == name)) is None:
                newest = connection.scalar(select(func.max(notices.c.id))) or 0
                connection.execute(insert(notice_receivers).values(name=name, after_id=newest))

    def find_due_notices(
        self, receiver: str, events: Collection[Event], *, since: datetime, now: datetime, limit: int = 20
    ) -> list[DueNotice]:
        """Return the receiver's due notices of these events, oldest first, those after `since`."""
        its = and_(deliveries.c.notice_id == notices.c.id, deliveries.c.receiver == receiver)
        # A try further away than any pause was planned before the clock was set back.
        planned = or_(deliveries.c.next_try_at <= now, deliveries.c.next_try_at > now + LONGEST_PAUSE)
        waits = and_(deliveries.c.delivered_at.is_(None), planned)
        query = (
            select(notices, func.coalesce(deliveries.c.attempts, 0).label("attempts"))
            .select_from(notices)
            .join(notice_receivers, notice_receivers.c.name == receiver)
            .outerjoin(deliveries, its)
            .where(
                notices.c.id > notice_receivers.c.after_id,
                notices.c.event.in_(events),
                notices.c.at > since,
                or_(deliveries.c.notice_id.is_(None), waits),
            )
            .order_by(notices.c.id)
            .limit(limit)
        )
        with self._reading() as connection:
            return [_to_due_notice(dict(row)) for row in connection.execute(query).mappings()]

    def record_delivery(
        self,
        notice_id: int,
        receiver: str,
        *,
        delivered_at: datetime | None = None,
        next_try_at: datetime | None = None,
        problem: str = "",
    ) -> None:
        """Record one attempt: the notice was delivered, or is to be tried again."""
        this = and_(deliveries.c.notice_id == notice_id, deliveries.c.receiver == receiver)
        went = {"delivered_at": delivered_at, "next_try_at": next_try_at, "problem": problem}
        with self._writing() as connection:
            again = update(deliveries).where(this).values(**went, attempts=deliveries.c.attempts + 1)
            if connection.execute(again).rowcount == 0:
                first = {"notice_id": notice_id, "receiver": receiver, "attempts": 1}
                connection.execute(insert(deliveries).values(**first, **went))

    def report_late_jobs(self, target: str, jobs: Collection[str], seconds: int, now: datetime) -> None:
        """Write a notice that jobs of the target should have begun up to `seconds` ago."""
        with self._writing() as connection:
            lock_target(connection, target)
            write_notice(connection, "jobs.late", target, now, jobs=", ".join(jobs), seconds=seconds)

    def prune_notices(self, before: datetime) -> None:
        """Forget what happened before a time, told or not."""
        old = select(notices.c.id).where(notices.c.at < before)
        with self._writing() as connection:
            connection.execute(delete(deliveries).where(deliveries.c.notice_id.in_(old)))
            connection.execute(delete(notices).where(notices.c.at < before))


def _to_due_notice(row: dict[str, Any]) -> DueNotice:
    return DueNotice(attempts=row.pop("attempts"), notice=Notice.model_validate(row))
