"""The two dialogs of the reading desk, for a reason to reject and for an edit."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from nicegui import events, ui

from daemon.console.base.chat_view import FIELD_NAMES
from daemon.console.base.widgets import show_heading, show_text
from daemon.data.review import ReadItem

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
            show_heading("Why is it rejected?")
            for number, reason in enumerate(REASONS, start=1):
                button = ui.button(f"{number}  {reason}", on_click=partial(self._go, reason))
                button.props("flat no-caps align=left color=primary").classes("full")
            self._own = ui.input("Another reason").props("outlined dense").classes("full")
            self._own.on("keydown.enter", self._own_reason)
            with ui.element("div").classes("line end"):
                ui.button("Cancel", on_click=self._dialog.close).props("flat no-caps color=primary")
                ui.button("Reject", on_click=self._own_reason).props("no-caps unelevated color=negative")
        self._keys = ui.keyboard(self._key, active=False, ignore=["input"], repeating=False)
        self._dialog.on_value_change(lambda: self._keys_are(bool(self._dialog.value)))

    def _keys_are(self, active: bool) -> None:
        self._keys.active = active

    def open(self, item: ReadItem) -> None:
        """Ask about an item, as it was read: what others decide meanwhile is not overwritten."""
        self._item = item
        self._own.set_value("")
        self._own.error = None
        self._dialog.open()

    async def _key(self, pressed: events.KeyEventArguments) -> None:
        number = pressed.key.number if pressed.action.keydown else None
        if number and number <= len(REASONS):
            await self._go(REASONS[number - 1])

    async def _own_reason(self) -> None:
        written = str(self._own.value or "").strip()
        if written:
            await self._go(written)
        else:
            self._own.error = "A rejection needs a reason."

    async def _go(self, reason: str) -> None:
        # Once, however often somebody clicks.
        item, self._item = self._item, None
        self._dialog.close()
        if item is not None:
            await self._reject(item, reason)


class EditDialog:
    """Changes what an item says, and approves that."""

    def __init__(
        self,
        approve: Callable[[ReadItem, dict[str, Any]], Awaitable[ReadItem | None]],
        then: Callable[[], Awaitable[None]],
    ) -> None:
        """`approve` gives None where it is written, else the item as it is now; `then` goes on."""
        self._approve = approve
        self._then = then
        self._item: ReadItem | None = None
        self._changed: dict[str, Any] = {}
        with ui.dialog().props("persistent") as self._dialog, ui.card().classes("dialog wide-dialog"):
            show_heading("Edit, then approve")
            show_text("What you write is the example; what was proposed is kept beside it.", "muted")
            self._fields = ui.element("div").classes("stack full")
            with ui.element("div").classes("line end"):
                ui.button("Cancel", on_click=self._dialog.close).props("flat no-caps color=primary")
                self._save_button = ui.button("Approve as edited (Ctrl+Enter)", on_click=self._save)
                self._save_button.props("no-caps unelevated color=positive")
        self._dialog.on("keydown.ctrl.enter", self._save)
        self._dialog.on("keydown.meta.enter", self._save)

    def open(self, item: ReadItem) -> None:
        """Offer the item as it stands."""
        self._item, self._changed = item, {}
        self._fields.clear()
        with self._fields:
            areas = [area for name, value in item.example.items() for area in self._field(name, value)]
        # What is wrong most often.
        areas[-1].props("autofocus")
        self._dialog.open()

    def _field(self, name: str, value: Any) -> list[ui.textarea]:
        if isinstance(value, str):
            return [
                self._area(
                    FIELD_NAMES.get(name, name), value, lambda said: self._changed.update({name: said})
                )
            ]
        messages: list[dict[str, Any]] = [dict(message) for message in value]

        def put(message: dict[str, Any], said: str) -> None:
            message["content"] = said
            self._changed[name] = messages

        return [
            self._area(
                FIELD_NAMES.get(name, str(message["role"])),
                str(message.get("content") or ""),
                partial(put, message),
            )
            for message in messages
        ]

    def _area(self, label: str, said: str, changed: Callable[[str], None]) -> ui.textarea:
        area = ui.textarea(label, value=said, on_change=lambda event: changed(str(event.value)))
        return area.props("outlined autogrow").classes("full")

    async def _save(self) -> None:
        if self._item is None or not self._save_button.enabled:
            return
        self._save_button.disable()
        try:
            now = await self._approve(self._item, dict(self._changed))
        finally:
            self._save_button.enable()
        if now is None:
            self._dialog.close()
            await self._then()
        else:
            # Another try is made upon what they have been told by now; what was written stays.
            self._item = now
