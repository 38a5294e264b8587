"""Asks the operator before something is done, with its consequences, and for a reason where one is needed."""

from collections.abc import Awaitable, Callable, Sequence

from nicegui import ui

from daemon.console.base.widgets import show_heading, show_text

REASON_NEEDED = "Say why: whoever comes after you will ask."


async def confirm(
    title: str,
    consequences: Sequence[str],
    action: str,
    *,
    reason: bool = False,
    min_length: int = 1,
    do: Callable[[str], Awaitable[bool]] | None = None,
) -> str | None:
    """Ask in a dialog, and return what the operator answered; None for no.

    The answer is `action`, or the operator's reason where `reason` asks for one of at least `min_length`
    characters. `do` gets the reason (or ""); the dialog stays open, with what was written, until it
    returns True.
    """
    with ui.dialog() as dialog, ui.card().classes("dialog"):
        show_heading(title)
        for words in consequences:
            show_text(words)
        field = ui.textarea("Why").props("outlined autogrow autofocus").classes("full") if reason else None

        async def go() -> None:
            written = str(field.value or "").strip() if field else ""
            if field and len(written) < min_length:
                field.error = REASON_NEEDED
                return
            for button in (no, yes):
                button.disable()
            if do is None or await do(written):
                dialog.submit((written if reason else action) or action)
            else:
                for button in (no, yes):
                    button.enable()

        with ui.element("div").classes("line end"):
            no = ui.button("Cancel", on_click=lambda: dialog.submit(None)).props("flat no-caps color=primary")
            yes = ui.button(action, on_click=go).props("no-caps unelevated color=primary")
            if field is None:
                yes.props("autofocus")
    answer = await dialog
    if not dialog.is_deleted:
        dialog.delete()
    return None if answer is None else str(answer)
