"""The dialogs of the reading desk: why it is rejected, what it should say, and whether it is meant."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from nicegui import ui

from daemon.approvals import ReadItem
from daemon.console.messages import ANSWERS
from daemon.console.parts import heading, text

REASONS = (
    "The answer is wrong",
    "Nobody would write this",
    "It repeats another one",
    "It is off topic",
    "It is badly written",
)
"""What a click or a number key says."""


class RejectDialog:
    """Asks for the reason."""

    def __init__(self, reject: Callable[[ReadItem, str], Awaitable[None]]) -> None:
        self._reject = reject
        self._item: ReadItem | None = None
        with ui.dialog() as self._dialog, ui.card().classes("dialog"):
            heading("Why is it rejected?")
            for number, reason in enumerate(REASONS, start=1):
                button = ui.button(f"{number}  {reason}", on_click=lambda reason=reason: self._go(reason))
                button.props("flat no-caps align=left color=primary").classes("full")
            self._own = ui.input("Another reason").props("outlined dense").classes("full")
            self._own.on("keydown.enter", self._own_reason)
            with ui.element("div").classes("line end"):
                ui.button("Cancel", on_click=self._dialog.close).props("flat no-caps color=primary")
                ui.button("Reject", on_click=self._own_reason).props("no-caps unelevated color=negative")
        ui.keyboard(self._key, ignore=["input", "textarea"], repeating=False)

    @property
    def is_open(self) -> bool:
        return bool(self._dialog.value)

    def open(self, item: ReadItem) -> None:
        """Ask about an item, as it was read: what others decide meanwhile is not overwritten."""
        self._item = item
        self._own.set_value("")
        self._own.props(remove="error error-message")
        self._dialog.open()

    async def _key(self, pressed: Any) -> None:
        number = pressed.key.number if self.is_open and pressed.action.keydown else None
        if number and number <= len(REASONS):
            await self._go(REASONS[number - 1])

    async def _own_reason(self) -> None:
        written = str(self._own.value or "").strip()
        if written:
            await self._go(written)
        else:
            self._own.props('error error-message="A rejection needs a reason."')

    async def _go(self, reason: str) -> None:
        self._dialog.close()
        if self._item is not None:
            await self._reject(self._item, reason)


class EditDialog:
    """Changes what an item says, and approves that."""

    def __init__(
        self,
        approve: Callable[[ReadItem, dict[str, Any]], Awaitable[bool]],
        then: Callable[[], Awaitable[None]],
    ) -> None:
        """`approve` writes it and says whether that could be done; `then` goes on."""
        self._approve = approve
        self._then = then
        self._item: ReadItem | None = None
        self._changed: dict[str, Any] = {}
        with ui.dialog().props("persistent") as self._dialog, ui.card().classes("dialog wide-dialog"):
            heading("Edit, then approve")
            text("What you write is the example; what was proposed is kept beside it.", "muted")
            self._fields = ui.element("div").classes("full")
            with ui.element("div").classes("line end"):
                ui.button("Cancel", on_click=self._dialog.close).props("flat no-caps color=primary")
                save = ui.button("Approve as edited (Ctrl+Enter)", on_click=self._save)
                save.props("no-caps unelevated color=positive")
        self._dialog.on("keydown.ctrl.enter", self._save)
        self._dialog.on("keydown.meta.enter", self._save)

    @property
    def is_open(self) -> bool:
        return bool(self._dialog.value)

    def open(self, item: ReadItem) -> None:
        """Offer the item as it stands."""
        self._item, self._changed = item, {}
        self._fields.clear()
        with self._fields:
            for name, value in item.example.items():
                self._field(name, value)
        self._dialog.open()

    def _field(self, name: str, value: Any) -> None:
        if isinstance(value, str):
            self._area(ANSWERS.get(name, name), value, lambda said: self._changed.update({name: said}))
            return
        messages: list[dict[str, Any]] = [dict(message) for message in value]

        def put(message: dict[str, Any], said: str) -> None:
            message["content"] = said
            self._changed[name] = messages

        for message in messages:
            label = ANSWERS.get(name, str(message["role"]))
            self._area(label, str(message.get("content") or ""), partial(put, message))

    def _area(self, label: str, said: str, changed: Callable[[str], None]) -> None:
        area = ui.textarea(label, value=said, on_change=lambda event: changed(str(event.value)))
        area.props("outlined autogrow").classes("full")

    async def _save(self) -> None:
        if self._item is not None and await self._approve(self._item, dict(self._changed)):
            self._dialog.close()
            await self._then()


async def confirmed(title: str, words: str, yes: str, *, asks_why: bool = False) -> str | None:
    """What the operator says to a question: `yes`, or the reason where one is asked for; None for no."""
    with ui.dialog() as dialog, ui.card().classes("dialog"):
        heading(title)
        text(words)
        why = ui.input("Why").props("outlined dense autofocus").classes("full")
        why.set_visibility(asks_why)

        def go() -> None:
            written = str(why.value or "").strip()
            if asks_why and not written:
                why.props('error error-message="Say why: whoever comes after you will ask."')
                return
            dialog.submit(written if asks_why else yes)

        with ui.element("div").classes("line end"):
            ui.button("Cancel", on_click=lambda: dialog.submit(None)).props("flat no-caps color=primary")
            confirm = ui.button(yes, on_click=go).props("no-caps unelevated color=primary")
            if not asks_why:
                confirm.props("autofocus")
    answer = await dialog
    dialog.delete()
    return str(answer) if answer else None
