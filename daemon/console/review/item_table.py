"""A batch as a table: many items at a glance, and several decided at once."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from nicegui import events, ui

from daemon.console.base.chat_view import to_plain_text
from daemon.console.base.confirm import confirm
from daemon.console.base.page_session import notify
from daemon.console.base.widgets import build_columns, label_checkboxes
from daemon.console.review.decisions import Decisions
from daemon.console.review.item_reader import ItemFilter, ItemReader
from daemon.data.review import ItemView
from registry.batches import ItemState

PAGE_SIZE = 50
"""Items of a page."""
COLUMNS = {"number": "Item", "state": "State", "asked": "Prompt", "answer": "Answer", "by": "By"}
BUTTONS = (
    ("Approve the chosen ones", ItemState.APPROVED, "positive"),
    ("Reject the chosen ones", ItemState.REJECTED, "negative"),
    ("Take back", ItemState.PENDING, "primary"),
)
LINK = """<q-td :props="props"><button class="open" :aria-label="`Open item ${props.value}`"
@click="$parent.$emit('open', props.value)">{{ props.value }}</button></q-td>"""


class ItemTable:
    """Shows a page of the items that a filter lets through, with buttons to decide the selected ones."""

    def __init__(
        self, reader: ItemReader, decisions: Decisions, open_item: Callable[[int], Awaitable[None]]
    ) -> None:
        """`open_item` shows one item by its number."""
        self._reader = reader
        self._decisions = decisions
        self._open_item = open_item
        self._filter = ItemFilter()
        self._items: dict[int, ItemView] = {}
        self._starts = [0]
        """For each page so far, the number that it begins behind."""
        self._readings = 0
        with ui.element("div").classes("stack") as self._whole:
            self._table = self._show_table()
            self._show_buttons()
        self._whole.set_visibility(False)

    def set_visibility(self, visible: bool) -> None:
        """Show or hide the table."""
        self._whole.set_visibility(visible)

    async def show(self, shown: ItemFilter) -> None:
        """Show the first page of the items that the filter lets through."""
        self._filter = shown
        self._starts = [0]
        await self.refresh()

    async def refresh(self) -> None:
        """Read the current page anew; selected rows stay selected."""
        self._readings += 1
        reading = self._readings
        items = await self._reader.read_page(self._filter, after=self._starts[-1], limit=PAGE_SIZE + 1)
        if reading != self._readings:
            return  # Another page or filter was asked for meanwhile.
        self._items = {item.number: item for item in items[:PAGE_SIZE]}
        selected = {row["number"] for row in self._table.selected}
        self._table.rows = [_build_row(item) for item in self._items.values()]
        self._table.selected = [row for row in self._table.rows if row["number"] in selected]
        self._table.update()
        for state, button in self._deciding.items():
            button.set_visibility(self._decisions.may(state))
        self._back.set_enabled(len(self._starts) > 1)
        self._next.set_enabled(len(items) > PAGE_SIZE)

    def _show_table(self) -> ui.table:
        table = ui.table(
            rows=[], columns=build_columns(COLUMNS), row_key="number", selection="multiple", pagination=0
        )
        table.classes("wide-table").props("flat bordered wrap-cells hide-pagination")
        label_checkboxes(table)
        table.add_slot("body-cell-number", LINK)
        table.on("open", self._open)
        return table

    def _show_buttons(self) -> None:
        with ui.element("div").classes("line acts"):
            self._deciding = {
                state: ui.button(words, on_click=partial(self._decide, state)).props(
                    f"no-caps outline color={color}"
                )
                for words, state, color in BUTTONS
            }
        with ui.element("div").classes("line"):
            self._back = ui.button("Page before", on_click=self._go_back)
            self._next = ui.button("Next page", on_click=self._go_on)
            for button in (self._back, self._next):
                button.props("flat no-caps color=primary")

    async def _go_on(self) -> None:
        self._next.disable()
        self._starts.append(max(self._items))
        await self.refresh()

    async def _go_back(self) -> None:
        self._back.disable()
        if len(self._starts) > 1:
            self._starts.pop()
        await self.refresh()

    async def _open(self, clicked: events.GenericEventArguments) -> None:
        await self._open_item(int(clicked.args))

    async def _decide(self, state: ItemState) -> None:
        chosen = [self._items[row["number"]] for row in self._table.selected]
        if not chosen:
            notify("Choose items first, with the boxes in front of them.")
            return
        answer = await _confirm_decision(state, len(chosen))
        if answer is None:
            return
        reason = answer if state is ItemState.REJECTED else ""
        if await self._decisions.decide(chosen, state, reason=reason):
            notify(f"{len(chosen)} decided; u takes that back.")
            self._table.selected = []
        await self.refresh()


async def _confirm_decision(state: ItemState, count: int) -> str | None:
    """Return the reason of a rejection, or any word for yes; None for no."""
    if state is ItemState.REJECTED:
        return await confirm(f"Reject {count} items?", ["All for one reason."], "Reject them", reason=True)
    if state is ItemState.APPROVED:
        consequences = ["You say, in your name, that you have read all of them."]
        return await confirm(f"Approve {count} items?", consequences, "Approve them")
    return "yes"


def _build_row(item: ItemView) -> dict[str, Any]:
    prompt, *answers = item.example.values()
    state = "waiting" if item.state is ItemState.PENDING else item.state.lower()
    return {
        "number": item.number,
        "state": f"{state}, edited" if item.edited else state,
        # The system prompt is the same in all of them.
        "asked": to_plain_text(prompt if isinstance(prompt, str) else prompt[-1:]),
        "answer": " / ".join(to_plain_text(answer) for answer in answers),
        "by": item.decided_by or "",
    }
