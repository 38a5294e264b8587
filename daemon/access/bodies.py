"""Limits the body of every request before anything reads it: its size, and what it may be."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from daemon.access.middleware import App, Receive, Send, send_refusal

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
SMALL_BODY = 64 * 2**10


@dataclass(frozen=True)
class BodyRule:
    """The body that the routes at some paths take."""

    paths: re.Pattern[str]
    """The whole path."""
    limit: int
    """Bytes."""
    types: tuple[str, ...]
    """Media types; empty for any."""


# A path may hold a line break.
DEFAULT_RULE = BodyRule(re.compile(".*", re.DOTALL), SMALL_BODY, (JSON,))


class BodyLimits:
    """ASGI middleware that refuses a body without a length (411), too large (413), or of another type (415).

    A request without a body is let through. The first of the `rules` that fits the path counts.
    """

    def __init__(self, app: App, rules: Sequence[BodyRule]) -> None:
        self._app = app
        self._rules = (*rules, DEFAULT_RULE)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        refusal = self._find_refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await send_refusal(scope, receive, send, *refusal)

    def _find_refusal(self, scope: Any) -> tuple[int, str] | None:
        headers = dict(scope["headers"])
        if b"transfer-encoding" in headers:
            return 411, "send the body with its Content-Length"
        # The parser ensures that no more comes than this header says.
        length = int(headers.get(b"content-length", b"0"))
        if not length:
            return None
        rule = next(rule for rule in self._rules if rule.paths.fullmatch(scope["path"]))
        if length > rule.limit:
            return 413, f"the body has more than {rule.limit} bytes"
        sent = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
        if rule.types and sent not in rule.types:
            return 415, f"send the body as {' or '.join(rule.types)}"
        return None
