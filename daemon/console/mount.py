"""The operators' console, on the daemon's API."""

from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from nicegui import ui

from daemon.access.sign_in import Authenticator
from daemon.console.base.context import ConsoleContext
from daemon.console.base.page_session import CONSOLE_PATH
from daemon.console.guard import ConsoleGuard
from daemon.console.not_found import add_not_found_page
from daemon.console.pages.adapters import add_adapters_page
from daemon.console.pages.approvals import add_approvals_pages
from daemon.console.pages.audit import add_audit_page
from daemon.console.pages.cycle_comparison import add_cycle_comparison_page
from daemon.console.pages.cycle_detail import add_cycle_page
from daemon.console.pages.cycle_history import add_cycle_history_page
from daemon.console.pages.data import add_data_page
from daemon.console.pages.data_audit import add_data_audit_page
from daemon.console.pages.overview import add_overview_page
from daemon.console.pages.sign_in import build_sign_in_router
from daemon.console.sockets import guard_sockets

ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" '
    'fill="#1d5fa8"/><path d="M8 22 14 15l4 4 7-9" fill="none" stroke="#fff" stroke-width="3"/></svg>'
)


def add_console(api: FastAPI, console: ConsoleContext, authenticator: Authenticator) -> None:
    """Serve the console below `/console`. Call it once a process: NiceGUI's pages belong to the process."""
    api.include_router(build_sign_in_router(console, authenticator))

    @api.get("/", include_in_schema=False)
    def home() -> RedirectResponse:
        return RedirectResponse(f"{CONSOLE_PATH}/", 303)

    for add_pages in (
        add_overview_page,
        add_approvals_pages,
        add_cycle_history_page,
        add_cycle_comparison_page,
        add_cycle_page,
        add_adapters_page,
        add_data_page,
        add_data_audit_page,
        add_audit_page,
    ):
        add_pages(console)
    add_not_found_page(api)
    api.add_middleware(ConsoleGuard, console=console)
    ui.run_with(
        api,
        mount_path=CONSOLE_PATH,
        title="learnd",
        favicon=ICON,
        dark=None,
        language="en-US",
        tailwind=False,
        # A phone that was put away for a moment comes back to where it was.
        reconnect_timeout=60,
        show_welcome_message=False,
    )
    guard_sockets(console)
