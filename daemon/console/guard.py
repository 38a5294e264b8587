"""Guards the console: pages, and what belongs to them, only for people who are signed in."""

from typing import Any
from urllib.parse import quote

from nicegui import Client
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse

from daemon.access.middleware import App, Receive, Send, send_refusal
from daemon.console.base.context import ConsoleContext
from daemon.console.base.page_session import CONSOLE_PATH, SIGN_IN

OPEN = frozenset({SIGN_IN, "/sign-out", "/favicon.ico"})
"""The only paths that are open to everybody: the page for signing in is plain, and needs nothing else."""
PARTS = "/_nicegui"
"""Begins the paths of scripts and styles, uploads, and the socket."""
UPLOADS = f"{PARTS}/client/"
"""Begins the paths of uploads; the page's id is next."""


class ConsoleGuard:
    """ASGI middleware that redirects strangers to the sign-in page.

    It does so before NiceGUI sees the request: each page that NiceGUI begins costs memory for a minute.
    Whose page a socket may speak for is checked in `daemon.console.sockets`.
    """

    def __init__(self, app: App, console: ConsoleContext) -> None:
        self._app = app
        self._console = console

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] in {"http", "websocket"} and path.startswith(f"{CONSOLE_PATH}/"):
            inside, request = path.removeprefix(CONSOLE_PATH), HTTPConnection(scope)
            if inside not in OPEN and not self._may_ask(inside, request):
                await _refuse(scope, receive, send, inside, request)
                return
        await self._app(scope, receive, send)

    def _may_ask(self, inside: str, request: HTTPConnection) -> bool:
        if inside.startswith(UPLOADS):
            return owns_page(self._console, inside.removeprefix(UPLOADS).partition("/")[0], request)
        return self._console.open_session(request).person is not None


def owns_page(console: ConsoleContext, page_id: str, request: HTTPConnection) -> bool:
    """Return True if a request comes from the session in which the page was opened, and nobody else's."""
    page = Client.instances.get(page_id)
    person = console.open_session(request).person
    return page is not None and person is not None and console.open_session(page.request).person == person


async def _refuse(scope: Any, receive: Receive, send: Send, inside: str, request: HTTPConnection) -> None:
    if scope["type"] == "websocket":
        await send_refusal(scope, receive, send, 403, "nobody is signed in")
    elif inside.startswith(PARTS):
        await PlainTextResponse("sign in first", 403)(scope, receive, send)
    else:
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        response = RedirectResponse(f"{CONSOLE_PATH}{SIGN_IN}?to={quote(wanted, safe='')}", 303)
        await response(scope, receive, send)
