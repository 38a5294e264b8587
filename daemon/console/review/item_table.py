"""A batch as a table, with many items at a glance and several decided at once."""

from functools import partial
from typing import TYPE_CHECKING, Any

from nicegui import events, ui

from daemon.console.base.chat_view import to_plain_text
from daemon.console.base.confirm import confirm
from daemon.console.base.page_session import notify
from daemon.console.base.widgets import build_columns, label_checkboxes
from daemon.data.review import ReadItem
from registry.batches import ItemState

if TYPE_CHECKING:
    from daemon.console.review.review_page import ReviewPage

PAGE = 50
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
    """Fifty items of the batch, by the desk's filters."""

    def __init__(self, desk: "ReviewPage") -> None:
        self._desk = desk
        self._items: dict[int, ReadItem] = {}
        self._starts = [0]
        """The number behind which each page so far begins."""
        self._readings = 0
        with ui.element("div").classes("stack") as self._whole:
            self._table = ui.table(
                rows=[], columns=build_columns(COLUMNS), row_key="number", selection="multiple", pagination=0
            )
            self._table.classes("wide-table").props("flat bordered wrap-cells hide-pagination")
            label_checkboxes(self._table)
            self._table.add_slot("body-cell-number", LINK)
            self._table.on("open", self._open)
            with ui.element("div").classes("line acts"):
                self._acts = {
                    state: ui.button(words, on_click=partial(self._decide, state)).props(
                        f"no-caps outline color={color}"
                    )
                    for words, state, color in BUTTONS
                }
            with ui.element("div").classes("line"):
                self._back = ui.button("Page before", on_click=self._page_before)
                self._on = ui.button("Next page", on_click=self._next_page)
                for button in (self._back, self._on):
                    button.props("flat no-caps color=primary")
        self._whole.set_visibility(False)

    def set_visibility(self, shown: bool) -> None:
        """Show or hide it."""
        self._whole.set_visibility(shown)

    async def read(self, *, keep_page: bool = False) -> None:
        """Show the items that the desk's filters let through; what is chosen stays so."""
        if not keep_page:
            self._starts = [0]
        self._readings += 1
        reading = self._readings
        desk, batch_id = self._desk.session.console.desk, self._desk.batch.id
        state, words, after = self._desk.state, self._desk.containing, self._starts[-1]
        page = await self._desk.session.read(
            lambda: desk.page(batch_id, state, after=after, containing=words, limit=PAGE + 1)
        )
        if reading != self._readings:
            return  # Something else was asked for meanwhile.
        self._items = {item.number: item for item in page.items[:PAGE]}
        chosen = {row["number"] for row in self._table.selected}
        self._table.rows = [_build_row(item) for item in self._items.values()]
        self._table.selected = [row for row in self._table.rows if row["number"] in chosen]
        self._table.update()
        for wanted, button in self._acts.items():
            button.set_visibility(self._desk.decisions.may(wanted))
        self._back.set_enabled(len(self._starts) > 1)
        self._on.set_enabled(len(page.items) > PAGE)

    async def _next_page(self) -> None:
        self._on.disable()
        self._starts.append(max(self._items))
        await self.read(keep_page=True)

    async def _page_before(self) -> None:
        self._back.disable()
        if len(self._starts) > 1:
            self._starts.pop()
        await self.read(keep_page=True)

    async def _open(self, clicked: events.GenericEventArguments) -> None:
        await self._desk.go(int(clicked.args))

    async def _decide(self, state: ItemState) -> None:
        chosen = [self._items[row["number"]] for row in self._table.selected]
        if not chosen:
            notify("Choose items first, with the boxes in front of them.")
            return
        reason = await _ask_about(state, len(chosen))
        if reason is None:
            return
        why = reason if state is ItemState.REJECTED else ""
        if await self._desk.decisions.decide(chosen, state, reason=why):
            notify(f"{len(chosen)} decided; u takes that back.")
            self._table.selected = []
        await self.read(keep_page=True)


async def _ask_about(state: ItemState, count: int) -> str | None:
    """The reason, or any word for yes; None for no."""
    if state is ItemState.REJECTED:
        return await confirm(f"Reject {count} items?", ["All for one reason."], "Reject them", why=True)
    if state is ItemState.APPROVED:
        means = ["You say, in your name, that you have read all of them."]
        return await confirm(f"Approve {count} items?", means, "Approve them")
    return "yes"


def _build_row(item: ReadItem) -> dict[str, Any]:
    said, *answers = item.example.values()
    state = "waiting" if item.state is ItemState.PENDING else item.state.lower()
    return {
        "number": item.number,
        "state": f"{state}, edited" if item.edited else state,
        # The system prompt is the same in all of them.
        "asked": to_plain_text(said if isinstance(said, str) else said[-1:]),
        "answer": " / ".join(to_plain_text(answer) for answer in answers),
        "by": item.decided_by or "",
    }
