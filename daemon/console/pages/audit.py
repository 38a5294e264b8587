"""Who did what, when, and why."""

from fastapi import Request
from nicegui import ui

from daemon.console.base.page_session import Console, Visit
from daemon.console.base.widgets import nothing, table
from daemon.console.frame import frame
from registry.audit import AuditEntry

PAGE = 100
"""Acts that are shown at once."""
COLUMNS = ("when", "who", "what", "target", "about", "detail")


def audit_page(console: Console) -> None:
    """At `/audit`."""

    @ui.page("/audit")
    def page(request: Request) -> None:
        visit = Visit.of(console, request)
        with frame(visit, "Audit log", wide=True):
            body = ui.element("div")
            more = ui.button("Show more").props("flat no-caps color=primary")
            more.set_visibility(False)
        wanted = 0

        async def read() -> None:
            nonlocal wanted
            wanted += PAGE
            acts = await visit.read(lambda: console.store.audit(None, wanted + 1))
            body.clear()
            with body:
                _show(acts[:wanted])
            more.set_visibility(len(acts) > wanted)

        more.on_click(read)
        ui.timer(0, read, once=True)


def _show(acts: list[AuditEntry]) -> None:
    if not acts:
        nothing(
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
    table("The last acts", rows, COLUMNS)
