"""Reading a batch: one item at a time, or a table of them; by keyboard, with undo.

a approve    r reject    e edit    j / k next / previous    u undo    t table    ? help
"""

import time
from collections.abc import Sequence
from typing import Any

from nicegui import events, ui

from daemon.approvals import ReadItem, Ruling
from daemon.console.deciding import EditDialog, RejectDialog, confirmed
from daemon.console.item_table import ItemTable
from daemon.console.messages import example_shown, message_shown, plain
from daemon.console.parts import Tagged, ago, chip, facts, heading, nothing, retone, text
from daemon.console.visit import Visit, tell
from registry.batches import MAY_BECOME, Batch, BatchState, ItemState

REFRESH_SECONDS = 2.0
UNSEEN_SECONDS = 0.2
"""A key that comes sooner after an item is shown was meant for the one before: nobody has read this one."""
ALL = "all"
FILTERS = {
    ALL: None,
    "waiting": ItemState.PENDING,
    "approved": ItemState.APPROVED,
    "rejected": ItemState.REJECTED,
}
KEYS = (
    ("a", "approve"),
    ("r", "reject, with a reason"),
    ("e", "edit, then approve"),
    ("j / k", "next / previous"),
    ("u", "undo your last decision"),
    ("t", "table or one at a time"),
    ("?", "this help"),
)


class ReadingDesk:
    """One batch on one page."""

    def __init__(self, visit: Visit, batch: Batch) -> None:
        self.visit = visit
        self.batch = batch
        self._item: ReadItem | None = None
        self._demonstrations: dict[str, dict[str, Any]] = {}
        self._decided: list[int] = []
        """Numbers of what was decided on this page, the last one last: what undo takes back."""
        self._tabled = False
        self._busy = False
        self._shown_at = 0.0
        self._head()
        with ui.element("div").classes("filters"):
            self._filters()
        self._one = ui.element("div").classes("desk")
        with self._one:
            with ui.element("div").classes("reading"):
                self._news = text("", "news").props("role=status")
                self._paper = ui.element("article").classes("card paper").props("aria-live=polite")
                self._buttons()
            self._beside = ui.element("aside").classes("beside").props('aria-label="Demonstrations"')
        self._table = ItemTable(self, hidden=True)
        self._reject_dialog = RejectDialog(self._reject)
        self._edit_dialog = EditDialog(self._write_edited, self._onward)
        ui.keyboard(self._key, ignore=["input", "select", "textarea"], repeating=False)

    async def open(self) -> None:
        """Begin with the first item that waits."""
        first = await self._find(after=0, state=ItemState.PENDING) or await self._find(after=0)
        await self._show(first)
        self.visit.every(REFRESH_SECONDS, self._look_again)

    @property
    def state(self) -> ItemState | None:
        """The state that is filtered for."""
        return FILTERS[str(self._filter.value)]

    @property
    def containing(self) -> str:
        """The words that are looked for."""
        return str(self._search.value or "").strip()

    @property
    def may_decide(self) -> bool:
        return self.visit.may_decide and bool(MAY_BECOME[self.batch.state])

    # ---- what is shown

    def _head(self) -> None:
        made = self.batch.provenance
        with ui.element("div").classes("line"):
            self._state = chip(self.batch.state)
            Tagged("span", f"{self.batch.target}: {self.batch.need}")
        self._bar = ui.linear_progress(0, show_value=False).props("rounded size=10px")
        self._bar.props('aria-label="Items decided"')
        self._count = text("", "muted")
        with ui.expansion("Where it comes from").classes("tools"):
            facts(
                {
                    "Written by": made.model,
                    "Program": made.program,
                    "Seed": made.seed,
                    "Asked for by": f"cycle {self.batch.cycle_id}",
                    "Made": self.batch.created_at,
                    "Expires": self.batch.expires_at,
                }
            )
        self._show_counts()

    def _show_counts(self) -> None:
        batch = self.batch
        done = batch.approved + batch.rejected
        retone(self._state, batch.state)
        self._bar.set_value(done / batch.size if batch.size else 1)
        words = f"{done} of {batch.size} decided: {batch.approved} approved, {batch.rejected} rejected"
        if batch.state is not BatchState.WAITING:
            words += f". {batch.state} by {batch.ended_by}" + (f": {batch.reason}" if batch.reason else "")
        self._count.set_text(words)

    def _filters(self) -> None:
        self._filter = ui.select(list(FILTERS), value=ALL, label="Show").props("outlined dense")
        self._filter.classes("filter").on_value_change(self._filtered)
        self._search = ui.input("Find").props("outlined dense clearable debounce=300").classes("filter")
        self._search.on_value_change(self._filtered)
        ui.button("Table", icon="table_rows", on_click=self.switch).props("flat no-caps color=primary")
        ui.button("Keys", icon="keyboard", on_click=self._help).props("flat no-caps color=primary")
        ui.space()
        if self.may_decide and self.batch.state is BatchState.WAITING:
            ui.button("Close", on_click=self._close).props("outline no-caps color=primary").tooltip(
                "Train on what was approved so far"
            )
            ui.button("Withdraw", on_click=self._withdraw).props("outline no-caps color=negative").tooltip(
                "Train on nothing of it"
            )

    def _buttons(self) -> None:
        with ui.element("div").classes("line acts") as self._acts:
            self._act("Approve (a)", self.approve, "positive")
            self._act("Reject (r)", self._ask_reason, "negative")
            self._act("Edit (e)", self._edit, "primary", outline=True)
            self._act("Undo (u)", self._undo, "primary", outline=True)
        with ui.element("div").classes("line"):
            ui.button("Previous (k)", on_click=self._previous).props("flat no-caps color=primary")
            ui.button("Next (j)", on_click=self._next).props("flat no-caps color=primary")
        self._acts.set_visibility(self.may_decide)

    def _act(self, words: str, do: Any, color: str, *, outline: bool = False) -> None:
        look = "outline" if outline else "unelevated"
        ui.button(words, on_click=do).props(f"no-caps {look} color={color}")

    async def _show(self, item: ReadItem | None) -> None:
        self._item, self._shown_at = item, time.monotonic()
        self._paper.clear()
        self._beside.clear()
        self._news.set_text("")
        with self._paper:
            if item is None:
                nothing("No item fits.", "Choose another filter, or look for other words.")
                return
            self._show_item(item)
        with self._beside:
            heading("Made from these", 3)
            shown = self._demonstrations
            known = [shown[each] for each in item.demonstrations if each in shown]
            if not known:
                text("The approved examples that it was made from are gone.", "muted")
            for example in known:
                with ui.element("article").classes("example"):
                    example_shown(example)

    def _show_item(self, item: ReadItem) -> None:
        with ui.element("div").classes("line"):
            heading(f"Item {item.number}", 2)
            chip(item.state if item.state is not ItemState.PENDING else "waiting")
            if item.edited:
                chip("edited", "busy")
            Tagged("span", f"diversity {item.diversity:.2f}").classes("muted")
        if item.decided_by:
            when = ago(item.decided_at, self.visit.console.clock())
            why = f": {item.reason}" if item.reason else ""
            text(f"{item.state.lower()} by {item.decided_by} {when}{why}", "muted")
        example_shown(item.example)
        if item.edited:
            with ui.expansion("As it was proposed").classes("tools"):
                for name, value in item.proposed.items():
                    if value != item.example[name]:
                        message_shown({"content": plain(value)}, f"{name}, proposed")

    # ---- going about

    async def _find(
        self, *, after: int = 0, before: int | None = None, state: ItemState | None = None
    ) -> ReadItem | None:
        desk, batch, words = self.visit.console.desk, self.batch.id, self.containing
        wanted = state or self.state
        page = await self.visit.read(
            lambda: desk.page(batch, wanted, after=after, before=before, containing=words, limit=1)
        )
        self._demonstrations.update(page.demonstrations)
        return page.items[0] if page.items else None

    async def go(self, number: int) -> None:
        """Show one item."""
        page = await self.visit.read(
            lambda: self.visit.console.desk.page(self.batch.id, after=number - 1, limit=1)
        )
        self._demonstrations.update(page.demonstrations)
        if self._tabled:
            await self.switch()
        await self._show(page.items[0] if page.items else None)

    async def _next(self) -> None:
        if found := await self._find(after=self._item.number if self._item else 0):
            await self._show(found)
        else:
            tell("That was the last one.")

    async def _previous(self) -> None:
        if self._item and (found := await self._find(before=self._item.number)):
            await self._show(found)
        else:
            tell("That was the first one.")

    async def _onward(self) -> None:
        """To the next item that waits, from the beginning again where there is none behind this one."""
        number = self._item.number if self._item else 0
        waits = await self._find(after=number, state=ItemState.PENDING)
        waits = waits or await self._find(after=0, state=ItemState.PENDING)
        if waits:
            await self._show(waits)
        elif self._item:
            await self.go(number)

    async def _filtered(self) -> None:
        if self._tabled:
            await self._table.read()
        else:
            await self._show(await self._find(after=0))

    async def switch(self) -> None:
        """From one at a time to the table, and back."""
        self._tabled = not self._tabled
        self._one.set_visibility(not self._tabled)
        self._table.set_visibility(self._tabled)
        if self._tabled:
            await self._table.read()

    async def _look_again(self) -> None:
        """Show what others decided meanwhile."""
        desk, store = self.visit.console.desk, self.visit.console.store
        self.batch = await self.visit.read(lambda: store.batch(self.batch.id))
        self._show_counts()
        self._acts.set_visibility(self.may_decide)
        item = self._item
        if item is None:
            return
        now = (await self.visit.read(lambda: desk.page(self.batch.id, after=item.number - 1, limit=1))).items
        if now and now[0].number == item.number and now[0].revision != item.revision:
            await self._show(now[0])
            self._news.set_text(f"{now[0].decided_by} has just decided this one: {now[0].state.lower()}.")

    # ---- deciding

    async def approve(self) -> None:
        """Approve what is shown, and go on."""
        if self._item and self.may_decide and await self._write(self._item, ItemState.APPROVED):
            await self._onward()

    def _ask_reason(self) -> None:
        if self._item and self.may_decide:
            self._reject_dialog.open(self._item)

    async def _reject(self, item: ReadItem, reason: str) -> None:
        if await self._write(item, ItemState.REJECTED, reason=reason):
            await self._onward()

    def _edit(self) -> None:
        if self._item and self.may_decide:
            self._edit_dialog.open(self._item)

    async def _write_edited(self, item: ReadItem, edited: dict[str, Any]) -> bool:
        return await self._write(item, ItemState.APPROVED, edited=edited)

    async def _undo(self) -> None:
        if not self._decided:
            tell("There is nothing of yours to undo.")
            return
        number = self._decided.pop()
        await self.go(number)
        if self._item and await self._write(self._item, ItemState.PENDING):
            await self.go(number)

    async def _write(
        self, item: ReadItem, state: ItemState, *, reason: str = "", edited: dict[str, Any] | None = None
    ) -> bool:
        """Decide one item as it was read; whether that could be done."""
        last = self.batch.state is BatchState.WAITING and self.batch.pending == 1
        if last and item.state is ItemState.PENDING and not await self._ends_with(state):
            return False
        ruling = Ruling(number=item.number, revision=item.revision, state=state, reason=reason, edited=edited)
        done = await self.decide([ruling])
        if not done and edited is None:
            # Somebody else was quicker, as a rule: show how it is now.
            await self.go(item.number)
        if done and state is not ItemState.PENDING:
            self._decided.append(item.number)
        return done

    async def decide(self, rulings: Sequence[Ruling]) -> bool:
        """Write what was decided, all of it or nothing; whether that could be done."""
        desk, batch = self.visit.console.desk, self.batch.id
        done = await self.visit.act(lambda actor: desk.decide(batch, rulings, actor=actor))
        self.batch = await self.visit.read(lambda: self.visit.console.store.batch(batch))
        self._show_counts()
        self._acts.set_visibility(self.may_decide)
        return done is not None

    async def _ends_with(self, state: ItemState) -> bool:
        approved = self.batch.approved + (state is ItemState.APPROVED)
        meant = await confirmed(
            "This is the last one",
            f"With it the batch ends: {approved} of {self.batch.size} are approved, and the target's next "
            "cycle may train on them. An approval can still be revoked afterwards, nothing else.",
            "Decide it",
        )
        return meant is not None

    async def _close(self) -> None:
        batch = self.batch
        if await confirmed(
            "Close the batch?",
            f"{batch.approved} approved examples train from now on. The {batch.pending} that nobody has "
            "decided count as rejected.",
            "Close it",
        ):
            desk = self.visit.console.desk
            await self.visit.act(lambda actor: desk.close(batch.id, actor=actor), said="The batch is closed.")
            await self._look_again()

    async def _withdraw(self) -> None:
        batch = self.batch
        why = await confirmed(
            "Withdraw the batch?",
            f"Nothing of it trains, not even the {batch.approved} approved examples.",
            "Withdraw it",
            asks_why=True,
        )
        if why:
            desk = self.visit.console.desk
            await self.visit.act(
                lambda actor: desk.withdraw(batch.id, actor=actor, reason=str(why)),
                said="The batch is withdrawn.",
            )
            await self._look_again()

    # ---- by keyboard

    async def _key(self, pressed: events.KeyEventArguments) -> None:
        held = pressed.modifiers
        elsewhere = self._reject_dialog.is_open or self._edit_dialog.is_open
        if not pressed.action.keydown or elsewhere or held.ctrl or held.alt or held.meta:
            return
        does = {
            "a": self.approve,
            "r": self._ask_reason,
            "e": self._edit,
            "j": self._next,
            "k": self._previous,
            "u": self._undo,
            "t": self.switch,
            "?": self._help,
        }.get(str(pressed.key.name))
        if does is None or (self._tabled and does not in {self.switch, self._help}):
            return
        if self._busy or time.monotonic() < self._shown_at + UNSEEN_SECONDS:
            return
        self._busy = True
        try:
            outcome = does()
            if outcome is not None:
                await outcome
        finally:
            self._busy = False

    def _help(self) -> None:
        with ui.dialog() as dialog, ui.card().classes("dialog"):
            heading("Keys")
            with ui.element("dl").classes("facts"):
                for key, does in KEYS:
                    with ui.element("dt"):
                        Tagged("kbd", key)
                    Tagged("dd", does)
            ui.button("Close", on_click=dialog.close).props("flat no-caps color=primary")
        dialog.open()
