"""Refuses web pages of other sites, which a browser lets send requests to any address that it can reach.

A page of another site cannot read our responses, but its requests have their effect. After DNS rebinding its
own name leads here, and then it also reads: only the Host header tells that name from ours.
https://fetch.spec.whatwg.org/#origin-header, https://w3c.github.io/webappsec-fetch-metadata/
"""

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from daemon.access.middleware import App, Receive, Send, send_refusal
from daemon.access.tokens import LOOPBACK
from daemon.settings.types import EVERY_ADDRESS

ANY_HOST = "*"
OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""Health checks, which show nothing and are asked by address."""
READING = frozenset({"GET", "HEAD"})


class OriginGuard:
    """ASGI middleware that answers 421 to a request for another host, and 403 to one from another site.

    Following a link of another site is allowed: browsers show our page then, and not the other one.
    """

    def __init__(self, app: App, allowed_hosts: Iterable[str], listens_on: str) -> None:
        """`allowed_hosts` are names and addresses without a port, or `*` for any; loopback's are always ours.

        `listens_on` is the address of our socket.
        """
        self._app = app
        self._hosts = (LOOPBACK | {host.lower() for host in allowed_hosts} | {listens_on}) - EVERY_ADDRESS

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"} and scope["path"] not in OPEN_PATHS:
            headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
            host = headers.get(b"host", "")
            if not self._is_ours(host):
                why = f"the settings' allowed_hosts do not name {host or 'an empty Host'}"
                await send_refusal(scope, receive, send, 421, why)
                return
            if _is_from_another_site(scope, headers, host):
                await send_refusal(scope, receive, send, 403, "this request comes from another site's page")
                return
        await self._app(scope, receive, send)

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        return ANY_HOST in self._hosts or (name or "").removesuffix(".") in self._hosts


def _is_from_another_site(scope: Any, headers: dict[bytes, str], host: str) -> bool:
    """Return True for a request that a page of another site makes a browser send."""
    site = headers.get(b"sec-fetch-site")
    if site is None:
        origin = headers.get(b"origin")
        return origin is not None and origin.lower() not in {
            f"http://{host}".lower(),
            f"https://{host}".lower(),
        }
    follows_link = (
        scope["type"] == "http"
        and scope["method"] in READING
        and headers.get(b"sec-fetch-mode") == "navigate"
        and headers.get(b"sec-fetch-dest") == "document"
    )
    return site not in {"same-origin", "none"} and not follows_link
