"""Before the console's pages, which nobody gets without signing in, nor another site a socket."""

from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from nicegui import Client
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse

from daemon.access.middleware import App, Receive, Send
from daemon.access.sign_in import COOKIE
from daemon.console.base.page_session import MOUNTED, SIGN_IN, Console, Visit

OPEN = ("/_nicegui/", SIGN_IN, "/sign-out", "/favicon.ico")
"""What the page of the sign-in needs, and code and styles, which are no secret."""
SOCKET = "/_nicegui_ws"


class GuardedConsole:
    """ASGI middleware. Refused before NiceGUI sees it: each page that it begins costs memory for a minute."""

    def __init__(self, app: App, console: Console) -> None:
        self._app = app
        self._console = console

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] in {"http", "websocket"} and path.startswith(f"{MOUNTED}/"):
            inside, asked = path.removeprefix(MOUNTED), HTTPConnection(scope)
            if inside.startswith(SOCKET):
                if not _from_its_page(asked):
                    await _refuse(scope, receive, send)
                    return
            elif not inside.startswith(OPEN) and Visit.of(self._console, asked).person is None:
                wanted = path + (f"?{asked.url.query}" if asked.url.query else "")
                await RedirectResponse(f"{MOUNTED}{SIGN_IN}?to={quote(wanted, safe='')}", 303)(
                    scope, receive, send
                )
                return
        await self._app(scope, receive, send)


def _from_its_page(asked: HTTPConnection) -> bool:
    """Whether a socket is opened by our own page, in the browser that was given it.

    Its URL names the page (and may stand in a proxy's log), so that alone must not be enough.
    """
    origin = asked.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != asked.headers.get("host"):
        return False
    named = parse_qs(asked.url.query).get("client_id", [""])[0]
    page = Client.instances.get(named)
    return page is None or page.request.cookies.get(COOKIE) == asked.cookies.get(COOKIE)


async def _refuse(scope: Any, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 4403})
        return
    await PlainTextResponse("this is not the page that was given to you", 403)(scope, receive, send)
