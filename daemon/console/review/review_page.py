"""Where a batch is read, one item at a time or as a table, by keyboard, with undo.

Buttons and keys come in through `desk.js`, with the number of the item that was on the screen.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from nicegui import events, ui

from daemon.console.base.chat_view import show_example, show_message, to_plain_text
from daemon.console.base.page_session import PageSession, notify, set_address
from daemon.console.base.widgets import (
    TextTag,
    format_age,
    set_aria_label,
    show_chip,
    show_empty_state,
    show_facts,
    show_heading,
    show_text,
    update_chip,
)
from daemon.console.review.decisions import Decisions
from daemon.console.review.dialogs import EditDialog, RejectDialog
from daemon.console.review.item_table import ItemTable
from daemon.data.review import ReadItem
from registry.batches import Batch, BatchState, ItemState

SCRIPT = Path(__file__).with_name("review.js")
REFRESH_SECONDS = 2.0
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


class ReviewPage:
    """One batch on one page."""

    def __init__(self, session: PageSession, batch: Batch) -> None:
        self.session = session
        self.decisions = Decisions(session, batch)
        self._item: ReadItem | None = None
        self._demonstrations: dict[str, dict[str, Any]] = {}
        self._tabled = False
        self._busy = False
        ui.add_body_html(f"<script>{SCRIPT.read_text('utf-8')}</script>")
        ui.on("learnd-desk", self._asked)
        self._head()
        self._tools()
        self._one = ui.element("div").classes("desk")
        with self._one:
            with ui.element("div").classes("reading"):
                self._news = show_text("", "news").props("role=status")
                self._paper = ui.element("article").classes("card paper")
                self._buttons()
            self._beside = set_aria_label(ui.element("aside"), "Demonstrations").classes("beside")
        self.table = ItemTable(self)
        self._reject_dialog = RejectDialog(self._reject)
        self._edit_dialog = EditDialog(self._approve_edited, self._onward)
        self._does: dict[str, Callable[[], Awaitable[None] | None]] = {
            "a": self._approve,
            "r": self._ask_reason,
            "e": self._edit,
            "j": self._next,
            "k": self._previous,
            "u": self._undo,
            "t": self.switch,
            "?": self._help,
        }

    async def open(self, number: int | None) -> None:
        """Begin with an item, or with the first that waits."""
        first = await self._at(number) if number else None
        first = first or await self._find(after=0, state=ItemState.PENDING) or await self._find(after=0)
        self._show(first)
        self.session.refresh_every(REFRESH_SECONDS, self._look_again)

    @property
    def batch(self) -> Batch:
        """How the batch stood when it was last read."""
        return self.decisions.batch

    @property
    def state(self) -> ItemState | None:
        """The state that is filtered for."""
        return FILTERS[str(self._filter.value)]

    @property
    def containing(self) -> str:
        """The words that are looked for."""
        return str(self._search.value or "").strip()

    # ---- what is on the page

    def _head(self) -> None:
        made = self.batch.provenance
        with ui.element("div").classes("line"):
            self._state = show_chip(self.batch.state)
            TextTag("span", f"{self.batch.target}: {self.batch.need}")
        bar = ui.linear_progress(0, show_value=False).props("rounded size=10px")
        self._bar = set_aria_label(bar, "Items decided")
        self._count = show_text("", "muted")
        with ui.expansion("Where it comes from").classes("tools"):
            show_facts(
                {
                    "Written by": made.model,
                    "Program": made.program,
                    "Seed": made.seed,
                    "Asked for by": f"cycle {self.batch.cycle_id}",
                    "Made": self.batch.created_at,
                    "Expires": self.batch.expires_at,
                }
            )

    def _tools(self) -> None:
        with ui.element("div").classes("filters"):
            self._filter = ui.select(list(FILTERS), value=ALL, label="Show").props("outlined dense")
            self._filter.classes("filter").on_value_change(self._filtered)
            self._search = ui.input("Find").props("outlined dense clearable debounce=300").classes("filter")
            self._search.on_value_change(self._filtered)
            # The keys are the desk's again, once it is said what to look for.
            self._search.on("keydown.enter", js_handler="(event) => event.target.blur()")
            _show_key_button("Table", "t", icon="table_rows")
            _show_key_button("Keys", "?", icon="keyboard")
            ui.space()
            # Not `ui.link`, whose paths are the console's own.
            export = TextTag("a", "Export").props("download")
            export.props["href"] = f"/api/v1/batches/{self.batch.id}/export"
            export.tooltip("As JSONL, for review in another tool")
            with ui.element("div").classes("line") as self._ends:
                self._import()
                close = ui.button("Close", on_click=self._close).props("outline no-caps color=primary")
                close.tooltip("Train on what was approved so far")
                withdraw = ui.button("Withdraw", on_click=self._withdraw)
                withdraw.props("outline no-caps color=negative").tooltip("Train on nothing of it")

    def _import(self) -> None:
        async def take(uploaded: events.UploadEventArguments) -> None:
            lines = (await uploaded.file.read()).decode("utf-8", errors="replace").split("\n")
            upload.reset()
            if (decided := await self.decisions.take_review(lines)) is not None:
                notify(f"{decided} items decided.")
                await self._onward()
            self._show_counts()

        upload = ui.upload(on_upload=take, auto_upload=True, max_file_size=64 * 2**20)
        upload.props('accept=".jsonl"').style("display: none")
        choose = ui.button("Import", on_click=lambda: upload.run_method("pickFiles"))
        choose.props("outline no-caps color=primary").tooltip("Decide what a reviewed export says")

    def _buttons(self) -> None:
        with ui.element("div").classes("acts"):
            with ui.element("div").classes("line"):
                self._acts = {
                    ItemState.APPROVED: (
                        _show_key_button("Approve (a)", "a", look="unelevated color=positive"),
                        _show_key_button("Edit (e)", "e", look="outline color=primary"),
                    ),
                    ItemState.REJECTED: (
                        _show_key_button("Reject (r)", "r", look="unelevated color=negative"),
                    ),
                    ItemState.PENDING: (_show_key_button("Undo (u)", "u", look="outline color=primary"),),
                }
            with ui.element("div").classes("line"):
                _show_key_button("Previous (k)", "k")
                _show_key_button("Next (j)", "j")

    def _show_counts(self) -> None:
        batch = self.batch
        done = batch.approved + batch.rejected
        update_chip(self._state, batch.state)
        self._bar.set_value(done / batch.size if batch.size else 1)
        words = f"{done} of {batch.size} decided: {batch.approved} approved, {batch.rejected} rejected"
        if batch.state is not BatchState.WAITING:
            words += f". {batch.state} by {batch.ended_by}" + (f": {batch.reason}" if batch.reason else "")
        self._count.set_text(words)
        for state, buttons in self._acts.items():
            for button in buttons:
                button.set_visibility(self.decisions.may(state))
        self._ends.set_visibility(self.decisions.may_end)

    def _show(self, item: ReadItem | None) -> None:
        self._item = item
        self._show_counts()
        self._paper.clear()
        self._beside.clear()
        self._news.set_text("")
        with self._paper:
            if item is None:
                show_empty_state("No item fits.", "Choose another filter, or look for other words.")
            else:
                self._show_item(item)
        with self._beside:
            show_heading("Made from these", 3)
            shown = self._demonstrations
            known = [shown[each] for each in item.demonstrations if each in shown] if item else []
            if item and not known:
                show_text("The approved examples that it was made from are gone.", "muted")
            for example in known:
                with ui.element("article").classes("example"):
                    show_example(example)
        ui.run_javascript(f"learndDesk.show({item.number if item else 0})")
        set_address(f"/approvals/{self.batch.id}", item=str(item.number) if item else None)

    def _show_item(self, item: ReadItem) -> None:
        with ui.element("div").classes("line"):
            show_heading(f"Item {item.number}")
            TextTag("span", f"of {self.batch.size}").classes("muted")
            show_chip(item.state if item.state is not ItemState.PENDING else "waiting")
            if item.edited:
                show_chip("edited", "busy")
            TextTag("span", f"diversity {item.diversity:.2f}").classes("muted")
        if item.decided_by:
            when = format_age(item.decided_at, self.session.console.clock())
            why = f": {item.reason}" if item.reason else ""
            show_text(f"{item.state.lower()} by {item.decided_by} {when}{why}", "muted")
        show_example(item.example)
        if item.edited:
            with ui.expansion("As it was proposed").classes("tools"):
                for name, value in item.proposed.items():
                    if value != item.example[name]:
                        show_message({"content": to_plain_text(value)}, f"{name}, proposed")

    # ---- going about

    async def _find(
        self, *, after: int = 0, before: int | None = None, state: ItemState | None = None
    ) -> ReadItem | None:
        desk, batch_id, words, wanted = (
            self.session.console.desk,
            self.batch.id,
            self.containing,
            state or self.state,
        )
        page = await self.session.read(
            lambda: desk.page(batch_id, wanted, after=after, before=before, containing=words, limit=1)
        )
        self._demonstrations.update(page.demonstrations)
        return page.items[0] if page.items else None

    async def _at(self, number: int) -> ReadItem | None:
        """The item as it is now, whatever is filtered for."""
        desk, batch_id = self.session.console.desk, self.batch.id
        page = await self.session.read(lambda: desk.page(batch_id, after=number - 1, limit=1))
        self._demonstrations.update(page.demonstrations)
        return next((item for item in page.items if item.number == number), None)

    async def go(self, number: int) -> None:
        """Show one item."""
        item = await self._at(number)
        if self._tabled:
            await self.switch()
        self._show(item)

    async def _next(self) -> None:
        if found := await self._find(after=self._item.number if self._item else 0):
            self._show(found)
        else:
            notify("That was the last one.")

    async def _previous(self) -> None:
        if self._item and (found := await self._find(before=self._item.number)):
            self._show(found)
        else:
            notify("That was the first one.")

    async def _onward(self) -> None:
        """To the next item that waits, from the beginning again where there is none behind this one."""
        number = self._item.number if self._item else 0
        waits = await self._find(after=number, state=ItemState.PENDING)
        waits = waits or await self._find(after=0, state=ItemState.PENDING)
        self._show(waits or await self._at(number))
        if self.batch.state is not BatchState.WAITING:
            self._news.set_text("Everything is decided. The target's next cycle begins by itself.")
        elif waits is None:
            self._news.set_text("Nothing waits any more that fits the filter.")

    async def _filtered(self) -> None:
        wanted = (self.state, self.containing)
        ui.run_javascript("document.activeElement?.closest('.q-select') && document.activeElement.blur()")
        if self._tabled:
            await self.table.read()
            return
        found = await self._find(after=0)
        # Whoever types on has asked for something else by now.
        if wanted == (self.state, self.containing):
            self._show(found)

    async def switch(self) -> None:
        """From one at a time to the table, and back."""
        self._tabled = not self._tabled
        self._one.set_visibility(not self._tabled)
        self.table.set_visibility(self._tabled)
        if self._tabled:
            await self.table.read()

    async def _look_again(self) -> None:
        """Show what others decided meanwhile."""
        item = self._item
        await self.decisions.refresh()
        now = await self._at(item.number) if item else None
        if self._busy or self._item is not item:
            return
        self._show_counts()
        me = self.session.person
        if item and now and now.revision != item.revision and not (me and now.decided_by == me.name):
            self._show(now)
            self._news.set_text(f"{now.decided_by} has just decided this one: {now.state.lower()}.")

    # ---- deciding

    async def _asked(self, event: events.GenericEventArguments) -> None:
        """A key or a button: done if it is about what is shown, and nothing else is going on."""
        key, shown = event.args["key"], event.args["shown"]
        about = self._item.number if self._item else 0
        if self._busy or shown != about or (self._tabled and key not in {"t", "?", "u"}):
            return
        self._busy = True
        try:
            outcome = self._does[key]()
            if outcome is not None:
                await outcome
        finally:
            self._busy = False

    async def _approve(self) -> None:
        if self._item and self.decisions.may(ItemState.APPROVED):
            await self._decide(self._item, ItemState.APPROVED)

    def _ask_reason(self) -> None:
        if self._item and self.decisions.may(ItemState.REJECTED):
            self._reject_dialog.open(self._item)

    async def _reject(self, item: ReadItem, reason: str) -> None:
        await self._decide(item, ItemState.REJECTED, reason=reason)

    async def _decide(self, item: ReadItem, state: ItemState, *, reason: str = "") -> None:
        if await self.decisions.decide([item], state, reason=reason):
            await self._onward()
        else:
            # Somebody else was quicker, as a rule: show how it is now.
            await self.go(item.number)

    def _edit(self) -> None:
        if self._item and self.decisions.may(ItemState.APPROVED):
            self._edit_dialog.open(self._item)

    async def _approve_edited(self, item: ReadItem, edited: dict[str, Any]) -> ReadItem | None:
        if await self.decisions.decide([item], ItemState.APPROVED, edited=edited):
            return None
        now = await self._at(item.number)
        if now and now.revision != item.revision:
            self._show(now)
        return now or item

    async def _undo(self) -> None:
        if not self.decisions.can_undo:
            notify("There is nothing of yours to undo.")
        elif undone := await self.decisions.undo():
            if self._tabled:
                await self.table.read(keep_page=True)
            else:
                self._show(await self._at(undone[0].number))
        self._show_counts()

    async def _close(self) -> None:
        await self.decisions.close()
        await self._again()

    async def _withdraw(self) -> None:
        await self.decisions.withdraw()
        await self._again()

    async def _again(self) -> None:
        if self._tabled:
            await self.table.read(keep_page=True)
        self._show(await self._at(self._item.number) if self._item else None)

    async def _help(self) -> None:
        with ui.dialog() as dialog, ui.card().classes("dialog"):
            show_heading("Keys")
            with ui.element("dl").classes("facts"):
                for key, does in KEYS:
                    with ui.element("dt"):
                        TextTag("kbd", key)
                    TextTag("dd", does)
            show_text("They can be switched off, in this browser, for those who dictate.", "muted")

            async def switch() -> None:
                now = await ui.run_javascript("return learndDesk.switchKeys()")
                notify(f"Keys are {now}.")

            with ui.element("div").classes("line end"):
                ui.button("Switch keys on or off", on_click=switch).props("flat no-caps color=primary")
                close = ui.button("Close", on_click=lambda: dialog.submit(None))
                close.props("unelevated no-caps color=primary autofocus")
        await dialog
        if not dialog.is_deleted:
            dialog.delete()


def _show_key_button(
    words: str, key: str, *, icon: str | None = None, look: str = "flat color=primary"
) -> ui.button:
    """A button that asks for what a key does."""
    button = ui.button(words, icon=icon).props(f"no-caps {look}")
    return button.on("click", js_handler=f"() => learndDesk.ask('{key}')")
