"""Guards the console: pages only for people who are signed in, sockets only for our own pages."""

from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from nicegui import Client
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse

from daemon.access.middleware import App, Receive, Send
from daemon.access.sign_in import COOKIE
from daemon.console.base.context import ConsoleContext
from daemon.console.base.page_session import CONSOLE_PATH, SIGN_IN

OPEN = ("/_nicegui/", SIGN_IN, "/sign-out", "/favicon.ico")
"""Paths that are open to everybody: the sign-in page, and code and styles, which are no secret."""
SOCKET = "/_nicegui_ws"


class ConsoleGuard:
    """ASGI middleware that redirects strangers to the sign-in page.

    It does so before NiceGUI sees the request: each page that NiceGUI begins costs memory for a minute.
    """

    def __init__(self, app: App, console: ConsoleContext) -> None:
        self._app = app
        self._console = console

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] in {"http", "websocket"} and path.startswith(f"{CONSOLE_PATH}/"):
            inside, request = path.removeprefix(CONSOLE_PATH), HTTPConnection(scope)
            if inside.startswith(SOCKET):
                if not _is_from_own_page(request):
                    await _refuse(scope, receive, send)
                    return
            elif not inside.startswith(OPEN) and self._console.open_session(request).person is None:
                wanted = path + (f"?{request.url.query}" if request.url.query else "")
                await RedirectResponse(f"{CONSOLE_PATH}{SIGN_IN}?to={quote(wanted, safe='')}", 303)(
                    scope, receive, send
                )
                return
        await self._app(scope, receive, send)


def _is_from_own_page(request: HTTPConnection) -> bool:
    """Return True if a socket is opened by our own page, in the browser that the page was sent to.

    The socket's URL names the page and may stand in a proxy's log, so the URL alone must not be enough.
    """
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        return False
    named = parse_qs(request.url.query).get("client_id", [""])[0]
    page = Client.instances.get(named)
    return page is None or page.request.cookies.get(COOKIE) == request.cookies.get(COOKIE)


async def _refuse(scope: Any, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 4403})
        return
    await PlainTextResponse("this is not the page that was given to you", 403)(scope, receive, send)
