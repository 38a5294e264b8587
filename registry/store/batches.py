"""Batches of synthetic examples: kept with their decisions, each durable when the call returns."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any
from uuid import uuid4

from sqlalchemy import (
    Connection,
    RowMapping,
    ScalarSelect,
    Select,
    bindparam,
    func,
    insert,
    select,
    update,
)

from extractors.errors import LearndError
from extractors.examples.types import Examples
from extractors.synthesis.recipes import SyntheticKind
from registry.audit import DAEMON, Action
from registry.batches import (
    EXAMPLE_TYPES,
    MAY_BECOME,
    TRANSITIONS,
    Batch,
    BatchEnded,
    BatchItem,
    BatchProvenance,
    BatchState,
    ItemChanged,
    ItemDecision,
    ItemState,
    Proposal,
    parse_synthetic_example,
)
from registry.cycles import IllegalTransition
from registry.store.audit import write_audit
from registry.store.database import ConstraintViolated, Database, lock_target, split_into_chunks
from registry.store.notices import write_notice
from registry.store.tables import batch_items, batches
from registry.store.targets import put_last_cycle_before

ITEM_STATES = (ItemState.PENDING, ItemState.APPROVED, ItemState.REJECTED)
DECISION_WORDS = {
    ItemState.PENDING: "taken back",
    ItemState.APPROVED: "approved",
    ItemState.REJECTED: "rejected",
}
TEXT_FIELDS = frozenset({"content", "arguments", "query", "text"})
"""Fields of an example that hold what somebody says."""
TRAINING_STATES = (BatchState.DECIDED, BatchState.EXPIRED)
"""States of batches whose approved items train."""


class UnknownBatch(LearndError):
    """No batch has this id, or no item in it this number."""

    def __init__(self, what: str) -> None:
        super().__init__(f"there is no {what}; `learnd approvals list` names them")


class BatchWaiting(LearndError):
    """A batch was to be made while one of the same kind waits for the target."""


class NobodyDecided(LearndError):
    """A decision came without the name of a person."""

    def __init__(self) -> None:
        super().__init__(
            f"only a named person decides about synthetic examples, and {DAEMON!r} is the name of none; "
            "say who decides"
        )


class BatchRecords(Database):
    """Batches of proposals, and people's decisions on them."""

    def add_batch(
        self,
        cycle_id: str,
        target: str,
        kind: SyntheticKind,
        need: str,
        provenance: BatchProvenance,
        proposals: Sequence[Proposal],
        *,
        now: datetime,
        expires_at: datetime,
    ) -> Batch:
        """Add a batch that waits for decisions.

        Raises BatchWaiting while one of this kind waits for the target, ExampleInvalid for a proposal
        that is no synthetic example of the kind, and ValueError without proposals.
        """
        if not proposals:
            raise ValueError("a batch without proposals has nothing to decide")
        for proposal in proposals:
            parse_synthetic_example(kind, proposal.example)
        batch_id = f"b-{now:%Y%m%d}-{uuid4().hex[:8]}"
        items = [
            BatchItem(**proposal.model_dump(), batch_id=batch_id, number=number).model_dump()
            for number, proposal in enumerate(proposals, start=1)
        ]
        try:
            with self._writing() as connection:
                lock_target(connection, target)
                connection.execute(
                    insert(batches).values(
                        id=batch_id,
                        target=target,
                        kind=kind,
                        state=BatchState.WAITING,
                        cycle_id=cycle_id,
                        need=need,
                        provenance=provenance,
                        created_at=now,
                        expires_at=expires_at,
                        reason="",
                    )
                )
                connection.execute(insert(batch_items), items)
                write_notice(
                    connection,
                    "batch.waiting",
                    target,
                    now,
                    batch=batch_id,
                    kind=kind,
                    cycle=cycle_id,
                    items=len(items),
                )
                return _load(connection, batch_id)
        except ConstraintViolated as cause:
            # The index allows one waiting batch a target and kind.
            raise BatchWaiting(
                f"a batch of {kind} waits for {target} already; decide it or withdraw it first"
            ) from cause

    def batch(self, batch_id: str) -> Batch:
        """Return the batch. Raises UnknownBatch."""
        with self._reading() as connection:
            return _load(connection, batch_id)

    def batches(
        self, target: str | None = None, state: BatchState | None = None, limit: int = 100
    ) -> list[Batch]:
        """The newest `limit` batches, newest first, of one target or of all, in one state or in any."""
        query = _select_batches().order_by(batches.c.created_at.desc(), batches.c.id.desc()).limit(limit)
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
        before: int | None = None,
        containing: str = "",
        limit: int | None = None,
    ) -> list[BatchItem]:
        """Items in order of their numbers, from the one behind `after` on.

        With `before`, those in front of that number, the nearest first. `containing` is looked for in
        what the model wrote and in what an operator made of it, whatever its case. Raises UnknownBatch.
        """
        mine = select(batch_items).where(batch_items.c.batch_id == batch_id, batch_items.c.number > after)
        mine = mine if state is None else mine.where(batch_items.c.state == state)
        mine = mine if before is None else mine.where(batch_items.c.number < before)
        order = batch_items.c.number if before is None else batch_items.c.number.desc()
        with self._reading() as connection:
            _load(connection, batch_id)
            most = None if containing else limit
            rows: Iterator[RowMapping] = iter(connection.execute(mine.order_by(order).limit(most)).mappings())
            if containing:
                # Not by SQL, which knows neither what of the JSON is text nor the case of all letters.
                rows = islice((row for row in rows if _contains(row, containing.casefold())), limit)
            return [BatchItem.model_validate(dict(row)) for row in rows]

    def decide(
        self, batch_id: str, decisions: Sequence[ItemDecision], *, actor: str, now: datetime
    ) -> list[BatchItem]:
        """Write decisions, all or none; the last one that was open decides the batch. Returns the items.

        Once the batch has ended an approval can only be revoked (see `MAY_BECOME`). Raises UnknownBatch,
        BatchEnded, NobodyDecided, ItemChanged where an item has another revision by now, and
        ExampleInvalid where an edited example is none of the batch's kind.
        """
        _require_person(actor)
        if not decisions:
            return []
        with self._writing() as connection:
            batch = _lock(connection, batch_id)
            for decision in decisions:
                _require_open(batch, decision.state, now)
            items = _write_decisions(connection, batch, decisions, actor, now)
            _audit(connection, batch, "decide", actor, now, _summarise(items))
            if batch.state is BatchState.WAITING and _load(connection, batch_id).pending == 0:
                _end(connection, batch, BatchState.DECIDED, actor, now)
            return items

    def close_batch(self, batch_id: str, *, actor: str, now: datetime, reason: str = "") -> Batch:
        """End a batch as it is: what is undecided will not train.

        Raises UnknownBatch, BatchEnded, NobodyDecided.
        """
        return self._end_batch(batch_id, BatchState.DECIDED, actor, now, reason)

    def withdraw_batch(self, batch_id: str, *, actor: str, now: datetime, reason: str) -> Batch:
        """End a batch of which no item may train, not even approved ones.

        Raises UnknownBatch, BatchEnded, NobodyDecided.
        """
        return self._end_batch(batch_id, BatchState.WITHDRAWN, actor, now, reason)

    def expire_batches(self, now: datetime) -> list[Batch]:
        """End the waiting batches whose time is over; returns them."""
        over = select(batches.c.id).where(batches.c.state == BatchState.WAITING, batches.c.expires_at <= now)
        with self._reading() as connection:
            # Nobody needs to wait for a lock because nothing is to be done.
            if connection.scalar(over.limit(1)) is None:
                return []
        ended = []
        with self._writing() as connection:
            for batch_id in connection.scalars(over.order_by(batches.c.id)).all():
                batch = _lock(connection, batch_id)
                if batch.state is not BatchState.WAITING:
                    continue  # Somebody was quicker.
                _end(connection, batch, BatchState.EXPIRED, DAEMON, now)
                said = f"{batch.approved} approved, {batch.rejected} rejected, {batch.pending} never decided"
                _audit(connection, batch, "expire", DAEMON, now, said)
                ended.append(_load(connection, batch_id))
        return ended

    def find_approved_examples(self, target: str) -> Examples:
        """Return every synthetic example of the target that a person approved, of batches that have ended."""
        query = (
            select(batch_items, batches.c.kind)
            .join(batches, batches.c.id == batch_items.c.batch_id)
            .where(
                batches.c.target == target,
                batches.c.state.in_(TRAINING_STATES),
                batch_items.c.state == ItemState.APPROVED,
            )
            .order_by(batches.c.created_at, batch_items.c.batch_id, batch_items.c.number)
        )
        found: dict[str, list[Any]] = {kind: [] for kind in EXAMPLE_TYPES}
        with self._reading() as connection:
            for row in connection.execute(query).mappings():
                example = _to_item(row).to_approved_example(row["kind"])
                if example is not None:
                    found[row["kind"]].append(example)
        return Examples(**{kind: tuple(examples) for kind, examples in found.items()})

    def _end_batch(self, batch_id: str, new: BatchState, actor: str, now: datetime, reason: str) -> Batch:
        _require_person(actor)
        with self._writing() as connection:
            batch = _lock(connection, batch_id)
            _require_open(batch, ItemState.PENDING, now)
            _end(connection, batch, new, actor, now, reason)
            action: Action = "withdraw" if new is BatchState.WITHDRAWN else "close"
            said = f"{batch.approved} approved, {batch.rejected} rejected, {batch.pending} undecided"
            _audit(connection, batch, action, actor, now, f"{said}: {reason}" if reason else said)
            return _load(connection, batch_id)


def _contains(row: RowMapping, words: str) -> bool:
    """Return True if the item's text has the words; names of fields and its origin do not count."""
    return any(words in said.casefold() for said in _find_texts([row["example"], row["edited"]]))


def _find_texts(written: Any) -> Iterator[str]:
    """Yield the texts in an example's JSON: messages, tool calls, queries, documents."""
    if isinstance(written, list):
        for each in written:
            yield from _find_texts(each)
    elif isinstance(written, dict):
        for name, value in written.items():
            if isinstance(value, str):
                yield from [value] if name in TEXT_FIELDS else []
            else:
                yield from _find_texts(value)


def _require_person(actor: str) -> None:
    if actor.strip() in {"", DAEMON}:
        raise NobodyDecided


def _require_open(batch: Batch, new: ItemState, now: datetime) -> None:
    """Check that items of the batch may still become `new`. Raises BatchEnded."""
    over = batch.state is BatchState.WAITING and batch.expires_at <= now
    state = BatchState.EXPIRED if over else batch.state
    if new not in MAY_BECOME[state]:
        still = " except to reject what was approved" if MAY_BECOME[state] else ""
        raise BatchEnded(f"batch {batch.id} is {state}: nothing about it can be decided any more{still}")


def _lock(connection: Connection, batch_id: str) -> Batch:
    """Lock the batch's target against other changes, and return the batch."""
    lock_target(connection, _load(connection, batch_id).target)
    return _load(connection, batch_id)


def _select_batches() -> Select[Any]:
    """Batches with the counts of their items."""
    return select(batches, *(_select_count(state).label(state.lower()) for state in ITEM_STATES))


def _select_count(state: ItemState) -> ScalarSelect[int]:
    # Counted one by one: databases cannot group by columns that hold JSON.
    mine = (batch_items.c.batch_id == batches.c.id, batch_items.c.state == state)
    return select(func.count()).select_from(batch_items).where(*mine).correlate(batches).scalar_subquery()


def _load(connection: Connection, batch_id: str) -> Batch:
    row = connection.execute(_select_batches().where(batches.c.id == batch_id)).mappings().one_or_none()
    if row is None:
        raise UnknownBatch(f"batch {batch_id}")
    return Batch.model_validate(dict(row))


def _to_item(row: RowMapping) -> BatchItem:
    return BatchItem.model_validate({name: row[name] for name in BatchItem.model_fields})


def _write_decisions(
    connection: Connection, batch: Batch, decisions: Sequence[ItemDecision], actor: str, now: datetime
) -> list[BatchItem]:
    """Write decisions on items of a locked batch; returns the changed items."""
    items, written = _load_items(connection, batch.id, [decision.number for decision in decisions]), []
    for decision in decisions:
        if decision.edited is not None:
            parse_synthetic_example(batch.kind, decision.edited)
        item = items.get(decision.number)
        if item is None:
            raise UnknownBatch(f"item {decision.number} in batch {batch.id}")
        if item.revision != decision.revision:
            raise ItemChanged(
                f"item {item.number} of batch {batch.id} is {item.state} by {item.decided_by} since you read "
                "it; look at it again"
            )
        decided = {"decided_by": actor, "decided_at": now, "revision": item.revision + 1}
        items[item.number] = item.model_copy(
            update={**decision.model_dump(include={"state", "reason", "edited"}), **decided}
        )
        written.append(items[item.number])
    this = (batch_items.c.batch_id == batch.id) & (batch_items.c.number == bindparam("item"))
    changed = {"state", "reason", "edited", "decided_by", "decided_at", "revision"}
    connection.execute(
        update(batch_items).where(this),
        [{"item": item.number, **item.model_dump(include=changed)} for item in written],
    )
    return written


def _load_items(connection: Connection, batch_id: str, numbers: Sequence[int]) -> dict[int, BatchItem]:
    """Return the existing items of these numbers, by number."""
    mine = select(batch_items).where(batch_items.c.batch_id == batch_id)
    return {
        row["number"]: _to_item(row)
        for some in split_into_chunks(numbers)
        for row in connection.execute(mine.where(batch_items.c.number.in_(some))).mappings()
    }


def _summarise(items: Sequence[BatchItem]) -> str:
    """Return the decisions by number in words, as `approved 1-3 7; edited and approved 4`."""
    numbers: dict[str, list[int]] = {}
    for item in items:
        how = f"{'edited and ' if item.edited is not None else ''}{DECISION_WORDS[item.state]}"
        numbers.setdefault(how, []).append(item.number)
    return "; ".join(f"{how} {' '.join(_find_ranges(found))}" for how, found in numbers.items())


def _find_ranges(numbers: Sequence[int]) -> Iterator[str]:
    """`1 2 3 7` as `1-3`, `7`."""
    ordered = sorted(numbers)
    starts = [at for at, number in enumerate(ordered) if at == 0 or ordered[at - 1] != number - 1]
    for start, end in zip(starts, [*starts[1:], len(ordered)], strict=True):
        first, last = ordered[start], ordered[end - 1]
        yield str(first) if first == last else f"{first}-{last}"


def _audit(
    connection: Connection, batch: Batch, action: Action, actor: str, now: datetime, detail: str
) -> None:
    write_audit(
        connection,
        now=now,
        actor=actor,
        action=action,
        target=batch.target,
        subject=batch.id,
        detail=detail,
    )


def _end(
    connection: Connection, batch: Batch, new: BatchState, actor: str, now: datetime, reason: str = ""
) -> None:
    if new not in TRANSITIONS[batch.state]:
        raise IllegalTransition(f"batch {batch.id}", batch.state, new)
    put_last_cycle_before(connection, batch.target, now)
    ended = {"state": new, "ended_at": now, "ended_by": actor, "reason": reason}
    connection.execute(update(batches).where(batches.c.id == batch.id).values(**ended))
