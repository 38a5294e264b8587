"""The decisions that an operator makes on one page, about items as they were read, and their undoing."""

from collections.abc import Callable, Sequence
from typing import Any

from daemon.console.base.confirm import confirm
from daemon.console.base.page_session import PageSession
from daemon.data.review import BatchReview, ItemView, Ruling
from registry.batches import MAY_BECOME, Batch, BatchState, ItemState


class Decisions:
    """Decides items of a batch, and knows the batch's current state."""

    def __init__(self, session: PageSession, review: BatchReview, batch: Batch) -> None:
        self.batch = batch
        self._session = session
        self._review = review
        self._done: list[tuple[ItemView, ...]] = []
        """The decisions made on this page, the last one last, with the items as they were right after."""

    def may(self, state: ItemState) -> bool:
        """Return True if this person may give items this state now."""
        return self._session.may_decide and state in MAY_BECOME[self.batch.state]

    @property
    def may_end(self) -> bool:
        """True if this person may close or withdraw the batch now."""
        return self._session.may_decide and self.batch.state is BatchState.WAITING

    @property
    def can_undo(self) -> bool:
        """True if something was decided on this page that can be taken back."""
        return bool(self._done)

    async def refresh(self) -> None:
        """Read the batch's state anew."""
        store, batch_id = self._review.store, self.batch.id
        self.batch = await self._session.read(lambda: store.batch(batch_id))

    async def decide(
        self,
        items: Sequence[ItemView],
        state: ItemState,
        *,
        reason: str = "",
        edited: dict[str, Any] | None = None,
    ) -> bool:
        """Give all items the same state; returns True if that was done.

        Somebody who changed one of them since it was read wins. Before the decision that ends the batch,
        the operator is asked.
        """
        if not await self._confirm_end(items, state):
            return False
        made = await self._write(
            [
                Ruling(number=item.number, revision=item.revision, state=state, reason=reason, edited=edited)
                for item in items
            ]
        )
        if made is not None:
            self._done.append(made)
        return made is not None

    async def undo(self) -> tuple[ItemView, ...]:
        """Take the last decision back, unless somebody else has decided since; returns the changed items."""
        if not self._done:
            return ()
        last = self._done[-1]
        pending = [
            Ruling(number=item.number, revision=item.revision, state=ItemState.PENDING) for item in last
        ]
        made = await self._write(pending)
        # If it could not be taken back now, it never can: the items have changed since.
        self._done.pop()
        return made or ()

    async def close(self) -> None:
        """Close the batch, if the operator confirms: approved items are trained on, the rest is rejected."""
        batch = self.batch
        consequences = [
            f"{batch.approved} approved examples train from now on. The {batch.pending} that nobody has "
            "decided count as rejected."
        ]

        def close(actor: str, reason: str) -> Batch:
            return self._review.close(batch.id, actor=actor, reason=reason)

        await self._end("Close", consequences, close, "The batch is closed.", min_length=0)

    async def withdraw(self) -> None:
        """Withdraw the batch, if the operator confirms: nothing of it is trained on."""
        batch = self.batch
        consequences = [f"Nothing of it trains, not even the {batch.approved} approved examples."]

        def withdraw(actor: str, reason: str) -> Batch:
            return self._review.withdraw(batch.id, actor=actor, reason=reason)

        await self._end("Withdraw", consequences, withdraw, "The batch is withdrawn.", min_length=1)

    async def import_review(self, lines: Sequence[str]) -> int | None:
        """Decide as a reviewed export says; returns the number of items, or None where it was refused."""
        batch_id = self.batch.id
        made = await self._session.act(lambda actor: self._review.import_lines(batch_id, lines, actor=actor))
        await self.refresh()
        if made is None:
            return None
        self._done.append(made)
        return len(made)

    async def _end(
        self,
        action: str,
        consequences: Sequence[str],
        end: Callable[[str, str], Batch],
        success: str,
        *,
        min_length: int,
    ) -> None:
        async def do(reason: str) -> bool:
            return await self._session.act(lambda actor: end(actor, reason), success=success) is not None

        await confirm(
            f"{action} the batch?", consequences, f"{action} it", reason=True, min_length=min_length, do=do
        )
        await self.refresh()

    async def _write(self, rulings: Sequence[Ruling]) -> tuple[ItemView, ...] | None:
        batch_id = self.batch.id
        made = await self._session.act(lambda actor: self._review.decide(batch_id, rulings, actor=actor))
        await self.refresh()
        return made

    async def _confirm_end(self, items: Sequence[ItemView], state: ItemState) -> bool:
        """Return True if the batch goes on after this decision, or if the operator confirms that it ends."""
        batch = self.batch
        decided = sum(item.state is ItemState.PENDING for item in items)
        if batch.state is not BatchState.WAITING or state is ItemState.PENDING or decided < batch.pending:
            return True
        approved = batch.approved + (len(items) if state is ItemState.APPROVED else 0)
        title = "This is the last one" if decided == 1 else "These are the last ones"
        consequences = (
            f"The batch ends with that: {approved} of {batch.size} are approved, and the target's next cycle "
            "may train on them. An approval can still be revoked afterwards, nothing else."
        )
        return await confirm(title, [consequences], "Decide it") is not None
