"""Questions to the operator before something is done, about what it means and why it is done."""

from collections.abc import Awaitable, Callable, Sequence

from nicegui import ui

from daemon.console.base.widgets import heading, text

WHY = "Say why: whoever comes after you will ask."


async def asked(
    title: str,
    means: Sequence[str],
    yes: str,
    *,
    why: bool = False,
    least: int = 1,
    do: Callable[[str], Awaitable[bool]] | None = None,
) -> str | None:
    """What the operator says: `yes`, or their reason where `why` asks for one; None for no.

    `least` characters of a reason are wanted. `do` gets the reason (or ""); the question stays, and
    what was written, until it returns True.
    """
    with ui.dialog() as dialog, ui.card().classes("dialog"):
        heading(title)
        for words in means:
            text(words)
        reason = ui.textarea("Why").props("outlined autogrow autofocus").classes("full") if why else None

        async def go() -> None:
            written = str(reason.value or "").strip() if reason else ""
            if reason and len(written) < least:
                reason.error = WHY
                return
            for button in (cancel, confirm):
                button.disable()
            if do is None or await do(written):
                dialog.submit((written if why else yes) or yes)
            else:
                for button in (cancel, confirm):
                    button.enable()

        with ui.element("div").classes("line end"):
            cancel = ui.button("Cancel", on_click=lambda: dialog.submit(None)).props(
                "flat no-caps color=primary"
            )
            confirm = ui.button(yes, on_click=go).props("no-caps unelevated color=primary")
            if reason is None:
                confirm.props("autofocus")
    answer = await dialog
    if not dialog.is_deleted:
        dialog.delete()
    return None if answer is None else str(answer)
