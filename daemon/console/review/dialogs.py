"""The dialogs of the review page: the reason of a rejection, an edit, and the help on keys."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from nicegui import events, ui

from daemon.console.base.chat_view import FIELD_NAMES
from daemon.console.base.page_session import notify
from daemon.console.base.widgets import TextTag, show_heading, show_text
from daemon.data.review import ItemView

REASONS = (
    "The answer is wrong",
    "Nobody would write this",
    "It repeats another one",
    "It is off topic",
    "It is badly written",
)
"""Reasons that one click or a number key gives."""
KEYS = (
    ("a", "approve"),
    ("r", "reject, with a reason"),
    ("e", "edit, then approve"),
    ("j / k", "next / previous"),
    ("u", "undo your last decision"),
    ("t", "table or one at a time"),
    ("?", "this help"),
)


class RejectDialog:
    """Asks for the reason of a rejection, and rejects."""

    def __init__(self, reject: Callable[[ItemView, str], Awaitable[None]]) -> None:
        self._reject = reject
        self._item: ItemView | None = None
        with ui.dialog() as self._dialog, ui.card().classes("dialog"):
            show_heading("Why is it rejected?")
            for number, reason in enumerate(REASONS, start=1):
                button = ui.button(f"{number}  {reason}", on_click=partial(self._submit, reason))
                button.props("flat no-caps align=left color=primary").classes("full")
            self._other = ui.input("Another reason").props("outlined dense").classes("full")
            self._other.on("keydown.enter", self._submit_other)
            with ui.element("div").classes("line end"):
                ui.button("Cancel", on_click=self._dialog.close).props("flat no-caps color=primary")
                ui.button("Reject", on_click=self._submit_other).props("no-caps unelevated color=negative")
        self._keys = ui.keyboard(self._handle_key, active=False, ignore=["input"], repeating=False)
        self._dialog.on_value_change(lambda: self._activate_keys(bool(self._dialog.value)))

    def _activate_keys(self, active: bool) -> None:
        self._keys.active = active

    def open(self, item: ItemView) -> None:
        """Ask about an item as it was read, so that what others decide meanwhile is not overwritten."""
        self._item = item
        self._other.set_value("")
        self._other.error = None
        self._dialog.open()

    async def _handle_key(self, pressed: events.KeyEventArguments) -> None:
        number = pressed.key.number if pressed.action.keydown else None
        if number and number <= len(REASONS):
            await self._submit(REASONS[number - 1])

    async def _submit_other(self) -> None:
        written = str(self._other.value or "").strip()
        if written:
            await self._submit(written)
        else:
            self._other.error = "A rejection needs a reason."

    async def _submit(self, reason: str) -> None:
        # Once, however often somebody clicks.
        item, self._item = self._item, None
        self._dialog.close()
        if item is not None:
            await self._reject(item, reason)


class EditDialog:
    """Changes the texts of an item, and approves the result."""

    def __init__(
        self,
        approve: Callable[[ItemView, dict[str, Any]], Awaitable[ItemView | None]],
        then: Callable[[], Awaitable[None]],
    ) -> None:
        """`approve` returns None if it was done, else the item as it is now. Afterwards `then` is called."""
        self._approve = approve
        self._then = then
        self._item: ItemView | None = None
        self._changed: dict[str, Any] = {}
        with ui.dialog().props("persistent") as self._dialog, ui.card().classes("dialog wide-dialog"):
            show_heading("Edit, then approve")
            show_text("What you write becomes the example; the proposal is kept as well.", "muted")
            self._fields = ui.element("div").classes("stack full")
            with ui.element("div").classes("line end"):
                ui.button("Cancel", on_click=self._dialog.close).props("flat no-caps color=primary")
                self._save_button = ui.button("Approve as edited (Ctrl+Enter)", on_click=self._save)
                self._save_button.props("no-caps unelevated color=positive")
        self._dialog.on("keydown.ctrl.enter", self._save)
        self._dialog.on("keydown.meta.enter", self._save)

    def open(self, item: ItemView) -> None:
        """Open the dialog with the item's current texts."""
        self._item, self._changed = item, {}
        self._fields.clear()
        with self._fields:
            areas = [area for name, value in item.example.items() for area in self._show_field(name, value)]
        # The last field is wrong most often.
        areas[-1].props("autofocus")
        self._dialog.open()

    def _show_field(self, name: str, value: Any) -> list[ui.textarea]:
        if isinstance(value, str):
            return [
                self._show_area(
                    FIELD_NAMES.get(name, name), value, lambda text: self._changed.update({name: text})
                )
            ]
        messages: list[dict[str, Any]] = [dict(message) for message in value]

        def set_content(message: dict[str, Any], text: str) -> None:
            message["content"] = text
            self._changed[name] = messages

        return [
            self._show_area(
                FIELD_NAMES.get(name, str(message["role"])),
                str(message.get("content") or ""),
                partial(set_content, message),
            )
            for message in messages
        ]

    def _show_area(self, label: str, text: str, change: Callable[[str], None]) -> ui.textarea:
        area = ui.textarea(label, value=text, on_change=lambda event: change(str(event.value)))
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
            # The next try is about the item as it is now, which the operator was told; what they wrote stays.
            self._item = now


async def show_key_help() -> None:
    """Show what each key does, and the button that switches keys on or off, until it is closed."""
    with ui.dialog() as dialog, ui.card().classes("dialog"):
        show_heading("Keys")
        with ui.element("dl").classes("facts"):
            for key, meaning in KEYS:
                with ui.element("dt"):
                    TextTag("kbd", key)
                TextTag("dd", meaning)
        show_text("They can be switched off, in this browser, for those who dictate.", "muted")

        async def switch() -> None:
            state = await ui.run_javascript("return learndReview.switchKeys()")
            notify(f"Keys are {state}.")

        with ui.element("div").classes("line end"):
            ui.button("Switch keys on or off", on_click=switch).props("flat no-caps color=primary")
            close = ui.button("Close", on_click=lambda: dialog.submit(None))
            close.props("unelevated no-caps color=primary autofocus")
    await dialog
    if not dialog.is_deleted:
        dialog.delete()
