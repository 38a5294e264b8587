"""A batch as a table: many items at a glance, and several decided at once."""

from typing import TYPE_CHECKING, Any

from nicegui import events, ui

from daemon.approvals import ReadItem, Ruling
from daemon.console.deciding import confirmed
from daemon.console.messages import plain
from daemon.console.parts import label_choices
from daemon.console.visit import tell
from registry.batches import BatchState, ItemState

if TYPE_CHECKING:
    from daemon.console.reading_desk import ReadingDesk

PAGE = 50
"""Items of a page."""
LONGEST = 160
"""Characters of a cell."""
COLUMNS = (("number", "Item"), ("state", "State"), ("asked", "Prompt"), ("answer", "Answer"), ("by", "By"))


class ItemTable:
    """Fifty items of the batch, by the desk's filters."""

    def __init__(self, desk: "ReadingDesk", *, hidden: bool) -> None:
        self._desk = desk
        self._items: dict[int, ReadItem] = {}
        self._starts = [0]
        """The number behind which each page so far begins."""
        columns = [{"name": name, "label": label, "field": name, "align": "left"} for name, label in COLUMNS]
        with ui.element("div") as self._whole:
            self._table = ui.table(
                rows=[], columns=columns, row_key="number", selection="multiple", pagination=0
            )
            self._table.classes("wide-table").props("flat bordered wrap-cells hide-pagination")
            label_choices(self._table)
            self._table.on("rowClick", self._open)
            with ui.element("div").classes("line acts") as self._acts:
                for words, state, color in (
                    ("Approve the chosen ones", ItemState.APPROVED, "positive"),
                    ("Reject the chosen ones", ItemState.REJECTED, "negative"),
                    ("Take back", ItemState.PENDING, "primary"),
                ):
                    button = ui.button(words, on_click=lambda state=state: self._decide(state))
                    button.props(f"no-caps outline color={color}")
            with ui.element("div").classes("line"):
                self._back = ui.button("Page before", on_click=self._page_before)
                self._on = ui.button("Next page", on_click=self._next_page)
                for button in (self._back, self._on):
                    button.props("flat no-caps color=primary")
        self._whole.set_visibility(not hidden)

    def set_visibility(self, shown: bool) -> None:
        """Show or hide it."""
        self._whole.set_visibility(shown)

    async def read(self, *, keep_page: bool = False) -> None:
        """Show the items that the desk's filters let through."""
        if not keep_page:
            self._starts = [0]
        desk, batch = self._desk.visit.console.desk, self._desk.batch.id
        state, words, after = self._desk.state, self._desk.containing, self._starts[-1]
        page = await self._desk.visit.read(
            lambda: desk.page(batch, state, after=after, containing=words, limit=PAGE + 1)
        )
        self._items = {item.number: item for item in page.items[:PAGE]}
        self._table.rows = [_row(item) for item in self._items.values()]
        self._table.selected = []
        self._table.update()
        self._acts.set_visibility(self._desk.may_decide)
        self._back.set_enabled(len(self._starts) > 1)
        self._on.set_enabled(len(page.items) > PAGE)

    async def _next_page(self) -> None:
        self._starts.append(max(self._items))
        await self.read(keep_page=True)

    async def _page_before(self) -> None:
        self._starts.pop()
        await self.read(keep_page=True)

    async def _open(self, clicked: events.GenericEventArguments) -> None:
        await self._desk.go(int(clicked.args[1]["number"]))

    async def _decide(self, state: ItemState) -> None:
        chosen = [self._items[row["number"]] for row in self._table.selected]
        if not chosen:
            tell("Choose items first, with the boxes in front of them.")
            return
        reason = await self._asked(state, chosen)
        if reason is None:
            return
        rulings = [
            Ruling(
                number=item.number,
                revision=item.revision,
                state=state,
                reason=reason if state is ItemState.REJECTED else "",
            )
            for item in chosen
        ]
        if await self._desk.decide(rulings):
            tell(f"{len(rulings)} decided.")
        await self.read(keep_page=True)

    async def _asked(self, state: ItemState, chosen: list[ReadItem]) -> str | None:
        """The reason, or any word for yes; None for no."""
        batch = self._desk.batch
        pending = sum(item.state is ItemState.PENDING for item in chosen)
        decides = batch.state is BatchState.WAITING and state is not ItemState.PENDING
        more = " The batch ends with that." if decides and pending == batch.pending else ""
        if state is ItemState.REJECTED:
            return await confirmed(
                f"Reject {len(chosen)} items?", f"All for one reason.{more}", "Reject them", asks_why=True
            )
        if state is ItemState.APPROVED:
            words = f"You say that you have read all of them.{more}"
            return await confirmed(f"Approve {len(chosen)} items?", words, "Approve them")
        return "yes"


def _row(item: ReadItem) -> dict[str, Any]:
    asked, *answers = (_short(plain(value)) for value in item.example.values())
    return {
        "number": item.number,
        "state": ("waiting" if item.state is ItemState.PENDING else item.state.lower())
        + (", edited" if item.edited else ""),
        "asked": asked,
        "answer": " / ".join(answers),
        "by": item.decided_by or "",
    }


def _short(words: str) -> str:
    return words if len(words) <= LONGEST else f"{words[: LONGEST - 1]}…"
