"""Binds every socket of the console to the pages of the person who opened it.

NiceGUI takes an event for any page whose id it names, from any socket. Ids are no secrets: so a socket opens
only pages of its own session, and speaks only for pages that it has opened.

browser                          server
GET /console/…                   the page, with its id
socket, with the session's cookie   refused unless somebody is signed in (`daemon.console.guard`)
connect or handshake, with the id   refused unless the page was opened in the same session
event, with the id               dropped unless this socket has opened the page
"""

import inspect
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import structlog
from nicegui import core, ui
from starlette.requests import HTTPConnection

from daemon.console.base.context import ConsoleContext
from daemon.console.guard import owns_page

log = structlog.get_logger()
SOCKETS = "/"
"""Socket.IO's namespace of NiceGUI's sockets."""
KEEP_IDS_OUT_OF_ADDRESSES = """<script>
(() => {
  let connect;
  Object.defineProperty(window, "io", {
    get: () => connect,
    set: (io) => {
      connect = (url, { query, ...options }) => io(url, { ...options, auth: (send) => send(query) });
    },
  });
})();
</script>"""
"""Sends what NiceGUI puts into the socket's address, which proxies log, in the socket's first message."""


def guard_sockets(console: ConsoleContext) -> None:
    """Check whose socket sends what. Call it once a process, after NiceGUI has registered its handlers."""
    ui.add_head_html(KEEP_IDS_OUT_OF_ADDRESSES, shared=True)
    # Polling would name the socket in addresses, and anybody could post to it.
    core.app.config.socket_io_js_transports = ["websocket"]
    sockets = core.sio
    sockets.eio.transports = ["websocket"]
    handlers = sockets.handlers[SOCKETS]
    for event, handler in list(handlers.items()):
        if event == "connect":
            handlers[event] = _guard_connect(console, handler)
        elif event == "handshake":
            handlers[event] = _guard_handshake(console, handler)
        elif event != "disconnect":
            handlers[event] = _guard_event(event, handler)


def _guard_connect(console: ConsoleContext, handler: Callable[..., Any]) -> Callable[..., Any]:
    async def connect(sid: str, environ: dict[str, Any], sent: object = None) -> bool:
        query: dict[str, Any] = sent if isinstance(sent, dict) else {}
        if query and not _is_own_page(console, environ, query):
            log.warning("a socket asked for a page of another session")
            return False
        # As NiceGUI reads it from the address.
        known = {name: value for name, value in query.items() if value is not None}
        words = {name: "true" if value is True else str(value) for name, value in known.items()}
        await handler(sid, {**environ, "QUERY_STRING": urlencode(words)})
        return True

    return connect


def _guard_handshake(console: ConsoleContext, handler: Callable[..., Any]) -> Callable[..., Any]:
    async def handshake(sid: str, sent: object = None) -> bool:
        environ = core.sio.get_environ(sid)
        if environ is None or not isinstance(sent, dict) or not _is_own_page(console, environ, sent):
            log.warning("a socket asked for a page of another session")
            return False
        return bool(await handler(sid, sent))

    return handshake


def _guard_event(event: str, handler: Callable[..., Any]) -> Callable[..., Any]:
    async def receive(sid: str, sent: object = None) -> None:
        # A socket enters the room of each page that it opens.
        if not isinstance(sent, dict) or sent.get("client_id") not in set(core.sio.rooms(sid)) - {sid}:
            log.warning("a socket spoke for a page that it has not opened", kind=event)
            return
        outcome = handler(sid, sent)
        if inspect.isawaitable(outcome):
            await outcome

    return receive


def _is_own_page(console: ConsoleContext, environ: dict[str, Any], sent: dict[str, Any]) -> bool:
    page = sent.get("client_id")
    return isinstance(page, str) and owns_page(console, page, HTTPConnection(environ["asgi.scope"]))
