"""The audit log: who did what, when, and why."""

from fastapi import Request
from nicegui import ui

from daemon.console.base.context import ConsoleContext
from daemon.console.base.widgets import show_empty_state, show_table
from daemon.console.frame import show_frame
from registry.audit import AuditEntry

PAGE_SIZE = 100
"""Acts that are shown at once."""
COLUMNS = ("when", "who", "what", "target", "about", "detail")


def add_audit_page(console: ConsoleContext) -> None:
    """Add the page `/audit`."""

    @ui.page("/audit")
    def page(request: Request) -> None:
        session = console.open_session(request)
        with show_frame(session, console.store, "Audit log", wide=True):
            body = ui.element("div")
            more = ui.button("Show more").props("flat no-caps color=primary")
            more.set_visibility(False)
        wanted = 0

        async def read() -> None:
            nonlocal wanted
            wanted += PAGE_SIZE
            acts = await session.read(lambda: console.store.audit(None, wanted + 1))
            body.clear()
            with body:
                _show_acts(acts[:wanted])
            more.set_visibility(len(acts) > wanted)

        more.on_click(read)
        ui.timer(0, read, once=True)


def _show_acts(acts: list[AuditEntry]) -> None:
    if not acts:
        show_empty_state(
            "Nothing has been done yet.",
            "Approvals, promotions, rollbacks and whatever else somebody decides will stand here.",
        )
        return
    rows = [
        {
            "when": act.at,
            "who": act.actor,
            "what": act.action,
            "target": act.target,
            "about": act.subject,
            "detail": act.detail,
        }
        for act in acts
    ]
    show_table("The last acts", rows, COLUMNS)
