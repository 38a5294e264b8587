"""Asks for the credential before the body: a framework reads and parses bodies before it checks anything."""

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from daemon.access.middleware import App, Receive, Send, send_refusal
from daemon.access.sign_in import Authenticator


class CredentialsFirst:
    """ASGI middleware that lets only those into the operators' routes who may do what they ask.

    Signing in is open to everybody; its body is small.
    """

    def __init__(self, app: App, authenticator: Authenticator, prefix: str) -> None:
        """Guard every path below `prefix`, known or not."""
        self._app = app
        self._authenticator = authenticator
        self._prefix = f"{prefix}/"
        self._session = f"{prefix}/session"

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(self._prefix):
            try:
                self._check(Request(scope))
            except HTTPException as refused:
                known = {**(refused.headers or {}), "Cache-Control": "no-store"}
                await send_refusal(scope, receive, send, refused.status_code, refused.detail, known)
                return
        await self._app(scope, receive, send)

    def _check(self, request: Request) -> None:
        if request.url.path != self._session:
            self._authenticator.check_may(request)
        elif request.method != "POST":
            self._authenticator.check_is_signed_in(request)
