"""Who did what, when, and why."""

from fastapi import Request
from fastapi.responses import RedirectResponse
from nicegui import ui

from daemon.console.frame import frame
from daemon.console.parts import nothing, table
from daemon.console.visit import Console, Visit, to_sign_in

SHOWN = 200


def audit_page(console: Console) -> None:
    """At `/audit`."""

    @ui.page("/audit")
    async def page(request: Request) -> RedirectResponse | None:
        visit = Visit.of(console, request)
        if visit.person is None:
            return to_sign_in(request)
        acts = await visit.read(lambda: console.store.audit(None, SHOWN))
        with frame(visit, "Audit log", wide=True):
            if not acts:
                nothing(
                    "Nothing has been done yet.",
                    "Approvals, promotions, rollbacks and whatever else somebody decides will stand here.",
                )
                return None
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
            table("The last acts", rows, ("when", "who", "what", "target", "about", "detail"))
        return None
