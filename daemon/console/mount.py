"""The operators' console, on the daemon's API."""

from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from nicegui import ui

from daemon.access.sign_in import Authenticator
from daemon.console.base.page_session import MOUNTED, Console
from daemon.console.guard import GuardedConsole
from daemon.console.pages.adapters import adapters_page
from daemon.console.pages.approvals import approvals_pages
from daemon.console.pages.audit import audit_page
from daemon.console.pages.cycle_detail import experiment_page
from daemon.console.pages.cycle_history import experiments_pages
from daemon.console.pages.data import data_page
from daemon.console.pages.overview import overview_page
from daemon.console.pages.sign_in import entrance

ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" '
    'fill="#1d5fa8"/><path d="M8 22 14 15l4 4 7-9" fill="none" stroke="#fff" stroke-width="3"/></svg>'
)


def add_console(api: FastAPI, console: Console, door: Authenticator) -> None:
    """Serve the console below `/console`; once a process, since NiceGUI's pages belong to the process."""
    api.include_router(entrance(console, door))

    @api.get("/", include_in_schema=False)
    def home() -> RedirectResponse:
        return RedirectResponse(f"{MOUNTED}/", 303)

    for add_pages in (
        overview_page,
        approvals_pages,
        experiments_pages,
        experiment_page,
        adapters_page,
        data_page,
        audit_page,
    ):
        add_pages(console)
    api.add_middleware(GuardedConsole, console=console)
    ui.run_with(
        api,
        mount_path=MOUNTED,
        title="learnd",
        favicon=ICON,
        dark=None,
        language="en-US",
        tailwind=False,
        # A phone that was put away for a moment comes back to where it was.
        reconnect_timeout=60,
        show_welcome_message=False,
    )
