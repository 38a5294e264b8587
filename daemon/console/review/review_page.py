"""The page on which a batch is reviewed: one item at a time or as a table, by keyboard, with undo.

Buttons and keys come in through `review.js`, with the number of the item that was on the screen.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from nicegui import events, ui

from daemon.console.base.page_session import PageSession, notify, set_address
from daemon.console.base.widgets import TextTag, set_aria_label, show_empty_state, show_text
from daemon.console.review.batch_header import BatchHeader
from daemon.console.review.decisions import Decisions
from daemon.console.review.dialogs import EditDialog, RejectDialog, show_key_help
from daemon.console.review.item_reader import ItemFilter, ItemReader
from daemon.console.review.item_table import ItemTable
from daemon.console.review.item_view import show_demonstrations, show_item
from daemon.data.review import BatchReview, ItemView
from registry.batches import Batch, BatchState, ItemState

SCRIPT = Path(__file__).with_name("review.js")
REFRESH_SECONDS = 2.0
ALL = "all"
STATES = {
    ALL: None,
    "waiting": ItemState.PENDING,
    "approved": ItemState.APPROVED,
    "rejected": ItemState.REJECTED,
}
"""The choices of the filter."""
KEYS_IN_TABLE = frozenset({"t", "?", "u"})


class ReviewPage:
    """Shows one batch, and decides its items."""

    def __init__(self, session: PageSession, review: BatchReview, batch: Batch) -> None:
        self._session = session
        self._clock = review.clock
        self._decisions = Decisions(session, review, batch)
        self._reader = ItemReader(session, review, batch.id)
        self._item: ItemView | None = None
        self._is_table = False
        self._busy = False
        self._handlers: dict[str, Callable[[], Awaitable[None] | None]] = {
            "a": self._approve,
            "r": self._ask_reason,
            "e": self._edit,
            "j": self._go_on,
            "k": self._go_back,
            "u": self._undo,
            "t": self._switch,
            "?": show_key_help,
        }
        ui.add_body_html(f"<script>{SCRIPT.read_text('utf-8')}</script>")
        ui.on("learnd-review", self._handle_key)
        self._header = BatchHeader(batch)
        self._show_tools(batch.id)
        self._show_reading_area()
        self._table = ItemTable(self._reader, self._decisions, self._open_item)
        self._reject_dialog = RejectDialog(self._reject)
        self._edit_dialog = EditDialog(self._approve_edited, self._go_to_next_waiting)

    async def open(self, number: int | None) -> None:
        """Begin with an item, or with the first that waits."""
        first = await self._reader.find_number(number) if number else None
        first = first or await self._find_waiting(after=0) or await self._reader.find(self._filter)
        self._show(first)
        self._session.refresh_every(REFRESH_SECONDS, self._show_news)

    @property
    def _filter(self) -> ItemFilter:
        """The filter that the operator has chosen."""
        return ItemFilter(STATES[str(self._state_choice.value)], str(self._search.value or "").strip())

    # ---- building the page

    def _show_tools(self, batch_id: str) -> None:
        with ui.element("div").classes("filters"):
            self._state_choice = ui.select(list(STATES), value=ALL, label="Show").props("outlined dense")
            self._state_choice.classes("filter").on_value_change(self._apply_filter)
            self._search = ui.input("Find").props("outlined dense clearable debounce=300").classes("filter")
            self._search.on_value_change(self._apply_filter)
            # After Enter, keys are the page's again.
            self._search.on("keydown.enter", js_handler="(event) => event.target.blur()")
            _show_key_button("Table", "t", icon="table_rows")
            _show_key_button("Keys", "?", icon="keyboard")
            ui.space()
            # Not `ui.link`, whose paths are the console's own.
            export = TextTag("a", "Export").props("download")
            export.props["href"] = f"/api/v1/batches/{batch_id}/export"
            export.tooltip("As JSONL, for review in another tool")
            with ui.element("div").classes("line") as self._ending:
                self._show_import()
                close = ui.button("Close", on_click=self._close).props("outline no-caps color=primary")
                close.tooltip("Train on what was approved so far")
                withdraw = ui.button("Withdraw", on_click=self._withdraw)
                withdraw.props("outline no-caps color=negative").tooltip("Train on nothing of it")

    def _show_import(self) -> None:
        async def import_file(uploaded: events.UploadEventArguments) -> None:
            lines = (await uploaded.file.read()).decode("utf-8", errors="replace").split("\n")
            upload.reset()
            if (decided := await self._decisions.import_review(lines)) is not None:
                notify(f"{decided} items decided.")
                await self._go_to_next_waiting()
            self._update_state()

        upload = ui.upload(on_upload=import_file, auto_upload=True, max_file_size=64 * 2**20)
        upload.props('accept=".jsonl"').style("display: none")
        choose = ui.button("Import", on_click=lambda: upload.run_method("pickFiles"))
        choose.props("outline no-caps color=primary").tooltip("Decide what a reviewed export says")

    def _show_reading_area(self) -> None:
        with ui.element("div").classes("review") as self._reading_area:
            with ui.element("div").classes("reading"):
                self._news = show_text("", "news").props("role=status")
                self._paper = ui.element("article").classes("card paper")
                self._show_buttons()
            aside = ui.element("aside").classes("demonstrations")
            self._demonstrations = set_aria_label(aside, "Demonstrations")

    def _show_buttons(self) -> None:
        with ui.element("div").classes("acts"):
            with ui.element("div").classes("line"):
                self._deciding = {
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

    # ---- showing what was read

    def _update_state(self) -> None:
        """Show the batch's current state, and only the buttons that it allows."""
        self._header.update(self._decisions.batch)
        for state, buttons in self._deciding.items():
            for button in buttons:
                button.set_visibility(self._decisions.may(state))
        self._ending.set_visibility(self._decisions.may_end)

    def _show(self, item: ItemView | None) -> None:
        batch = self._decisions.batch
        self._item = item
        self._update_state()
        self._paper.clear()
        self._demonstrations.clear()
        self._news.set_text("")
        with self._paper:
            if item is None:
                show_empty_state("No item fits.", "Choose another filter, or look for other words.")
            else:
                show_item(item, batch.size, self._clock())
        with self._demonstrations:
            show_demonstrations(item, self._reader.find_demonstrations(item) if item else ())
        ui.run_javascript(f"learndReview.show({item.number if item else 0})")
        set_address(f"/approvals/{batch.id}", item=str(item.number) if item else None)

    async def _show_news(self) -> None:
        """Show what others have decided meanwhile."""
        item = self._item
        await self._decisions.refresh()
        now = await self._reader.find_number(item.number) if item else None
        if self._busy or self._item is not item:
            return
        self._update_state()
        me = self._session.person
        if item and now and now.revision != item.revision and not (me and now.decided_by == me.name):
            self._show(now)
            self._news.set_text(f"{now.decided_by} has just decided this one: {now.state.lower()}.")

    # ---- navigating

    async def _find_waiting(self, *, after: int) -> ItemView | None:
        return await self._reader.find(self._filter.with_state(ItemState.PENDING), after=after)

    async def _open_item(self, number: int) -> None:
        item = await self._reader.find_number(number)
        if self._is_table:
            await self._switch()
        self._show(item)

    async def _go_on(self) -> None:
        number = self._item.number if self._item else 0
        if found := await self._reader.find(self._filter, after=number):
            self._show(found)
        else:
            notify("That was the last one.")

    async def _go_back(self) -> None:
        if self._item and (found := await self._reader.find(self._filter, before=self._item.number)):
            self._show(found)
        else:
            notify("That was the first one.")

    async def _go_to_next_waiting(self) -> None:
        """Show the next item that waits, starting again at the first one after the last."""
        number = self._item.number if self._item else 0
        waiting = await self._find_waiting(after=number) or await self._find_waiting(after=0)
        self._show(waiting or await self._reader.find_number(number))
        if self._decisions.batch.state is not BatchState.WAITING:
            self._news.set_text("Everything is decided. The target's next cycle begins automatically.")
        elif waiting is None:
            self._news.set_text("Nothing waits any more that fits the filter.")

    async def _apply_filter(self) -> None:
        chosen = self._filter
        ui.run_javascript("document.activeElement?.closest('.q-select') && document.activeElement.blur()")
        if self._is_table:
            await self._table.show(chosen)
            return
        found = await self._reader.find(chosen)
        # Somebody who is still typing has asked for something else by now.
        if chosen == self._filter:
            self._show(found)

    async def _switch(self) -> None:
        """Switch between one item at a time and the table."""
        self._is_table = not self._is_table
        self._reading_area.set_visibility(not self._is_table)
        self._table.set_visibility(self._is_table)
        if self._is_table:
            await self._table.show(self._filter)

    # ---- deciding

    async def _handle_key(self, event: events.GenericEventArguments) -> None:
        """Do what a key or button asks for, if it is about the shown item and nothing else is going on."""
        key, shown = event.args["key"], event.args["shown"]
        number = self._item.number if self._item else 0
        if self._busy or shown != number or (self._is_table and key not in KEYS_IN_TABLE):
            return
        self._busy = True
        try:
            outcome = self._handlers[key]()
            if outcome is not None:
                await outcome
        finally:
            self._busy = False

    async def _approve(self) -> None:
        if self._item and self._decisions.may(ItemState.APPROVED):
            await self._decide(self._item, ItemState.APPROVED)

    def _ask_reason(self) -> None:
        if self._item and self._decisions.may(ItemState.REJECTED):
            self._reject_dialog.open(self._item)

    async def _reject(self, item: ItemView, reason: str) -> None:
        await self._decide(item, ItemState.REJECTED, reason=reason)

    async def _decide(self, item: ItemView, state: ItemState, *, reason: str = "") -> None:
        if await self._decisions.decide([item], state, reason=reason):
            await self._go_to_next_waiting()
        else:
            # As a rule somebody else was quicker: show the item as it is now.
            await self._open_item(item.number)

    def _edit(self) -> None:
        if self._item and self._decisions.may(ItemState.APPROVED):
            self._edit_dialog.open(self._item)

    async def _approve_edited(self, item: ItemView, edited: dict[str, Any]) -> ItemView | None:
        if await self._decisions.decide([item], ItemState.APPROVED, edited=edited):
            return None
        now = await self._reader.find_number(item.number)
        if now and now.revision != item.revision:
            self._show(now)
        return now or item

    async def _undo(self) -> None:
        if not self._decisions.can_undo:
            notify("There is nothing of yours to undo.")
        elif undone := await self._decisions.undo():
            if self._is_table:
                await self._table.refresh()
            else:
                self._show(await self._reader.find_number(undone[0].number))
        self._update_state()

    async def _close(self) -> None:
        await self._decisions.close()
        await self._refresh()

    async def _withdraw(self) -> None:
        await self._decisions.withdraw()
        await self._refresh()

    async def _refresh(self) -> None:
        if self._is_table:
            await self._table.refresh()
        self._show(await self._reader.find_number(self._item.number) if self._item else None)


def _show_key_button(
    words: str, key: str, *, icon: str | None = None, look: str = "flat color=primary"
) -> ui.button:
    """Show a button that does what a key does."""
    button = ui.button(words, icon=icon).props(f"no-caps {look}")
    return button.on("click", js_handler=f"() => learndReview.request('{key}')")
