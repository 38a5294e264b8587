"""One item of a batch as operators read it, and the examples that it was made from."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from nicegui import ui

from daemon.console.base.chat_view import show_example, show_message, to_plain_text
from daemon.console.base.widgets import TextTag, format_age, show_chip, show_heading, show_text
from daemon.data.review import ItemView
from registry.batches import ItemState


def show_item(item: ItemView, batch_size: int, now: datetime) -> None:
    """Show the item as it stands, who decided it, and what was edited."""
    with ui.element("div").classes("line"):
        show_heading(f"Item {item.number}")
        TextTag("span", f"of {batch_size}").classes("muted")
        show_chip(item.state if item.state is not ItemState.PENDING else "waiting")
        if item.edited:
            show_chip("edited", "busy")
        TextTag("span", f"diversity {item.diversity:.2f}").classes("muted")
    if item.decided_by:
        reason = f": {item.reason}" if item.reason else ""
        age = format_age(item.decided_at, now)
        show_text(f"{item.state.lower()} by {item.decided_by} {age}{reason}", "muted")
    show_example(item.example)
    if item.edited:
        with ui.expansion("As it was proposed").classes("tools"):
            for name, value in item.proposed.items():
                if value != item.example[name]:
                    show_message({"content": to_plain_text(value)}, f"{name}, proposed")


def show_demonstrations(item: ItemView | None, demonstrations: Sequence[Mapping[str, Any]]) -> None:
    """Show the approved examples that the item was made from, or that they are gone."""
    show_heading("Made from these", 3)
    if item and not demonstrations:
        show_text("The approved examples that it was made from are gone.", "muted")
    for example in demonstrations:
        with ui.element("article").classes("example"):
            show_example(example)
