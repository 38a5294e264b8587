"""Batches of synthetic examples: kept with their decisions, each durable when the call returns."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, RowMapping, Select, case, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from extractors.examples import Examples
from extractors.values import LearndError
from registry.audit import DAEMON
from registry.batches import (
    EXAMPLES,
    TRANSITIONS,
    Batch,
    BatchEnded,
    BatchItem,
    BatchState,
    Decision,
    ItemChanged,
    ItemState,
    Proposal,
    Provenance,
    SyntheticKind,
)
from registry.cycles import IllegalTransition
from registry.store.audit import write_audit
from registry.store.database import Database, lock_target
from registry.store.tables import batch_items, batches

COUNTED = (ItemState.PENDING, ItemState.APPROVED, ItemState.REJECTED)
ENDED_WITH_WORD = (BatchState.DECIDED, BatchState.EXPIRED)
"""States of batches whose approved items train."""


class UnknownBatch(LearndError):
    """No batch has this id, or no item in it this number."""

    def __init__(self, what: str) -> None:
        super().__init__(f"there is no {what}; `learnd approvals list` names them")


class BatchWaiting(LearndError):
    """A batch was to be made while one of the same kind waits for the target."""


class BatchRecords(Database):
    """What a model proposed, and what people decided about it."""

    def add_batch(
        self,
        cycle_id: str,
        target: str,
        kind: SyntheticKind,
        need: str,
        provenance: Provenance,
        proposals: Sequence[Proposal],
        *,
        now: datetime,
        expires_at: datetime,
    ) -> Batch:
        """A new batch that waits. Raises BatchWaiting while one of this kind waits for the target."""
        batch_id = f"b-{now:%Y%m%d}-{uuid4().hex[:8]}"
        fixed = {"id": batch_id, "target": target, "kind": kind, "cycle_id": cycle_id, "need": need}
        times = {"created_at": now, "expires_at": expires_at, "reason": ""}
        try:
            with self._writing() as connection:
                lock_target(connection, target)
                connection.execute(
                    insert(batches).values(
                        **fixed, **times, state=BatchState.WAITING, provenance=provenance.model_dump()
                    )
                )
                items = [
                    BatchItem(**proposal.model_dump(), batch_id=batch_id, number=number).model_dump()
                    for number, proposal in enumerate(proposals, start=1)
                ]
                connection.execute(insert(batch_items), items)
                return _load(connection, batch_id)
        except IntegrityError as cause:
            # The index allows one waiting batch a target and kind.
            raise BatchWaiting(
                f"a batch of {kind} waits for {target} already; decide it or withdraw it first"
            ) from cause

    def batch(self, batch_id: str) -> Batch:
        """Raises UnknownBatch."""
        with self._reading() as connection:
            return _load(connection, batch_id)

    def batches(
        self, target: str | None = None, state: BatchState | None = None, limit: int = 100
    ) -> list[Batch]:
        """The newest `limit` batches, newest first, of one target or of all, in one state or in any."""
        query = _batches().order_by(batches.c.created_at.desc(), batches.c.id.desc()).limit(limit)
        query = query if target is None else query.where(batches.c.target == target)
        query = query if state is None else query.where(batches.c.state == state)
        with self._reading() as connection:
            return [Batch.model_validate(dict(row)) for row in connection.execute(query).mappings()]

    def batch_items(
        self,
        batch_id: str,
        state: ItemState | None = None,
        *,
        after: int = 0,
        limit: int | None = None,
    ) -> list[BatchItem]:
        """Items in order of their numbers, from the one behind `after` on. Raises UnknownBatch."""
        mine = select(batch_items).where(batch_items.c.batch_id == batch_id, batch_items.c.number > after)
        mine = mine if state is None else mine.where(batch_items.c.state == state)
        with self._reading() as connection:
            _load(connection, batch_id)
            rows = connection.execute(mine.order_by(batch_items.c.number).limit(limit)).mappings()
            return [BatchItem.model_validate(dict(row)) for row in rows]

    def decide(
        self, batch_id: str, decisions: Sequence[Decision], *, actor: str, now: datetime
    ) -> list[BatchItem]:
        """Write decisions, all or none; the last one that was open decides the batch. Returns the items.

        Raises UnknownBatch, BatchEnded, ItemChanged where an item has another revision by now, and
        ValidationError where an edited example is none of the batch's kind.
        """
        if not actor or actor == DAEMON:
            raise LearndError("only a named person decides about synthetic examples")
        with self._writing() as connection:
            batch = self._waiting(connection, batch_id, now)
            items = [_decided(connection, batch, decision, actor, now) for decision in decisions]
            lock_target(connection, batch.target)
            write_audit(
                connection,
                now=now,
                actor=actor,
                action="decide",
                target=batch.target,
                subject=batch_id,
                detail=_summary(items),
            )
            if _load(connection, batch_id).pending == 0:
                _end(connection, batch, BatchState.DECIDED, actor, now)
            return items

    def close_batch(self, batch_id: str, *, actor: str, now: datetime) -> Batch:
        """End a batch as it is: what is undecided will not train. Raises UnknownBatch, BatchEnded."""
        return self._ended(batch_id, BatchState.DECIDED, actor, now, "closed")

    def withdraw_batch(self, batch_id: str, *, actor: str, now: datetime, reason: str) -> Batch:
        """Have nothing of it train, whatever was approved. Raises UnknownBatch, BatchEnded."""
        return self._ended(batch_id, BatchState.WITHDRAWN, actor, now, reason)

    def expire_batches(self, now: datetime) -> list[Batch]:
        """End the waiting batches whose time is over; returns them."""
        over = select(batches.c.id).where(batches.c.state == BatchState.WAITING, batches.c.expires_at <= now)
        with self._writing() as connection:
            ended = []
            for batch_id in connection.scalars(over).all():
                _end(connection, _load(connection, batch_id), BatchState.EXPIRED, DAEMON, now)
                ended.append(_load(connection, batch_id))
            return ended

    def decided_since(self, target: str, moment: datetime | None) -> bool:
        """Whether a batch of the target was decided after `moment`, or ever: its target is due again."""
        decided = select(batches.c.id).where(
            batches.c.target == target, batches.c.state == BatchState.DECIDED
        )
        later = decided if moment is None else decided.where(batches.c.ended_at > moment)
        with self._reading() as connection:
            return connection.scalar(later.limit(1)) is not None

    def approved_examples(self, target: str) -> Examples:
        """Every synthetic example of the target that a person approved, of batches that have ended."""
        query = (
            select(batch_items, batches.c.kind)
            .join(batches, batches.c.id == batch_items.c.batch_id)
            .where(
                batches.c.target == target,
                batches.c.state.in_(ENDED_WITH_WORD),
                batch_items.c.state == ItemState.APPROVED,
            )
            .order_by(batches.c.created_at, batch_items.c.batch_id, batch_items.c.number)
        )
        found: dict[str, list[Any]] = {kind: [] for kind in EXAMPLES}
        with self._reading() as connection:
            for row in connection.execute(query).mappings():
                example = _item(row).approved_example(row["kind"])
                if example is not None:
                    found[row["kind"]].append(example)
        return Examples(**{kind: tuple(examples) for kind, examples in found.items()})

    def _waiting(self, connection: Connection, batch_id: str, now: datetime) -> Batch:
        batch = _load(connection, batch_id)
        if batch.state is not BatchState.WAITING or batch.expires_at <= now:
            ended = batch.state if batch.state is not BatchState.WAITING else BatchState.EXPIRED
            raise BatchEnded(f"batch {batch_id} is {ended}: its items can no longer be decided")
        return batch

    def _ended(self, batch_id: str, new: BatchState, actor: str, now: datetime, reason: str) -> Batch:
        with self._writing() as connection:
            batch = self._waiting(connection, batch_id, now)
            lock_target(connection, batch.target)
            write_audit(
                connection,
                now=now,
                actor=actor,
                action="withdraw" if new is BatchState.WITHDRAWN else "decide",
                target=batch.target,
                subject=batch_id,
                detail=reason,
            )
            _end(connection, batch, new, actor, now, reason if new is BatchState.WITHDRAWN else "")
            return _load(connection, batch_id)


def _batches() -> Select[Any]:
    """Batches with the counts of their items."""
    counts = [
        func.sum(case((batch_items.c.state == state, 1), else_=0)).label(state.lower()) for state in COUNTED
    ]
    return (
        select(batches, *counts)
        .join(batch_items, batch_items.c.batch_id == batches.c.id)
        .group_by(*batches.c)
    )


def _load(connection: Connection, batch_id: str) -> Batch:
    row = connection.execute(_batches().where(batches.c.id == batch_id)).mappings().one_or_none()
    if row is None:
        raise UnknownBatch(f"batch {batch_id}")
    return Batch.model_validate(dict(row))


def _item(row: RowMapping) -> BatchItem:
    return BatchItem.model_validate({name: row[name] for name in BatchItem.model_fields})


def _decided(
    connection: Connection, batch: Batch, decision: Decision, actor: str, now: datetime
) -> BatchItem:
    if decision.edited is not None:
        EXAMPLES[batch.kind].model_validate(decision.edited)
    this = (batch_items.c.batch_id == batch.id) & (batch_items.c.number == decision.number)
    taken = connection.execute(
        update(batch_items)
        .where(this, batch_items.c.revision == decision.revision)
        .values(
            state=decision.state,
            edited=decision.edited,
            reason=decision.reason,
            decided_by=actor,
            decided_at=now,
            revision=decision.revision + 1,
        )
    )
    row = connection.execute(select(batch_items).where(this)).mappings().one_or_none()
    if row is None:
        raise UnknownBatch(f"item {decision.number} in batch {batch.id}")
    item = _item(row)
    if taken.rowcount == 0:
        raise ItemChanged(
            f"item {item.number} of batch {batch.id} is {item.state} by {item.decided_by} since you read it; "
            "look at it again"
        )
    return item


def _summary(items: Sequence[BatchItem]) -> str:
    return ", ".join(
        f"{item.number} {item.state.lower()}{' (edited)' if item.edited else ''}" for item in items
    )


def _end(
    connection: Connection, batch: Batch, new: BatchState, actor: str, now: datetime, reason: str = ""
) -> None:
    if new not in TRANSITIONS[batch.state]:
        raise IllegalTransition(f"batch {batch.id}", batch.state, new)
    ended = {"state": new, "ended_at": now, "ended_by": actor, "reason": reason}
    connection.execute(update(batches).where(batches.c.id == batch.id).values(**ended))
