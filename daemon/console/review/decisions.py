"""What an operator decides on one page, upon what they read, and undone in turn."""

from collections.abc import Sequence
from typing import Any

from daemon.console.base.confirm import confirm
from daemon.console.base.page_session import PageSession
from daemon.data.review import ReadItem, Ruling
from registry.batches import MAY_BECOME, Batch, BatchState, ItemState


class Decisions:
    """Decides about the items of a batch, and keeps how the batch stands."""

    def __init__(self, session: PageSession, batch: Batch) -> None:
        self.batch = batch
        self._session = session
        self._done: list[tuple[ReadItem, ...]] = []
        """What was decided on this page, the last act last, as it was right after."""

    def may(self, state: ItemState) -> bool:
        """Whether items may be decided to be this, by this person, now."""
        return self._session.may_decide and state in MAY_BECOME[self.batch.state]

    @property
    def may_end(self) -> bool:
        return self._session.may_decide and self.batch.state is BatchState.WAITING

    @property
    def can_undo(self) -> bool:
        return bool(self._done)

    async def refresh(self) -> None:
        """Read how the batch stands."""
        store, batch_id = self._session.console.store, self.batch.id
        self.batch = await self._session.read(lambda: store.batch(batch_id))

    async def decide(
        self,
        items: Sequence[ReadItem],
        state: ItemState,
        *,
        reason: str = "",
        edited: dict[str, Any] | None = None,
    ) -> bool:
        """Decide items alike, as they were read; whether that was done. The last one is asked about."""
        if not await self._ends_knowingly(items, state):
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

    async def undo(self) -> tuple[ReadItem, ...]:
        """Take the last act back, unless somebody else has decided since; the items as they are then."""
        if not self._done:
            return ()
        last = self._done[-1]
        pending = [
            Ruling(number=item.number, revision=item.revision, state=ItemState.PENDING) for item in last
        ]
        made = await self._write(pending)
        # Where it could not be taken back now, it never can: it is not what it was.
        self._done.pop()
        return made or ()

    async def close(self) -> None:
        """End the batch, if that is meant: what is approved trains, what is left counts as rejected."""
        batch, desk = self.batch, self._session.console.desk

        async def do(reason: str) -> bool:
            return (
                await self._session.act(
                    lambda actor: desk.close(batch.id, actor=actor, reason=reason),
                    success="The batch is closed.",
                )
                is not None
            )

        await confirm(
            "Close the batch?",
            [
                f"{batch.approved} approved examples train from now on. The {batch.pending} that nobody has "
                "decided count as rejected."
            ],
            "Close it",
            why=True,
            least=0,
            do=do,
        )
        await self.refresh()

    async def withdraw(self) -> None:
        """Have nothing of the batch train, if that is meant."""
        batch, desk = self.batch, self._session.console.desk

        async def do(reason: str) -> bool:
            return (
                await self._session.act(
                    lambda actor: desk.withdraw(batch.id, actor=actor, reason=reason),
                    success="The batch is withdrawn.",
                )
                is not None
            )

        means = [f"Nothing of it trains, not even the {batch.approved} approved examples."]
        await confirm("Withdraw the batch?", means, "Withdraw it", why=True, do=do)
        await self.refresh()

    async def take_review(self, lines: Sequence[str]) -> int | None:
        """Decide what a reviewed export says; how many items, None where it was refused."""
        desk, batch_id = self._session.console.desk, self.batch.id
        made = await self._session.act(lambda actor: desk.import_lines(batch_id, lines, actor=actor))
        await self.refresh()
        if made is None:
            return None
        self._done.append(made)
        return len(made)

    async def _write(self, rulings: Sequence[Ruling]) -> tuple[ReadItem, ...] | None:
        desk, batch_id = self._session.console.desk, self.batch.id
        made = await self._session.act(lambda actor: desk.decide(batch_id, rulings, actor=actor))
        await self.refresh()
        return made

    async def _ends_knowingly(self, items: Sequence[ReadItem], state: ItemState) -> bool:
        """Whether the batch goes on after this, or the operator means it to end."""
        batch = self.batch
        decided = sum(item.state is ItemState.PENDING for item in items)
        if batch.state is not BatchState.WAITING or state is ItemState.PENDING or decided < batch.pending:
            return True
        approved = batch.approved + (len(items) if state is ItemState.APPROVED else 0)
        title = "This is the last one" if decided == 1 else "These are the last ones"
        means = (
            f"The batch ends with that: {approved} of {batch.size} are approved, and the target's next cycle "
            "may train on them. An approval can still be revoked afterwards, nothing else."
        )
        return await confirm(title, [means], "Decide it") is not None
