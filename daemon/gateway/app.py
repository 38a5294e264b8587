"""The gateway as an ASGI application: its routes, and the check of the caller's token.

Plain ASGI, because a framework's routing costs more than all the rest of the gateway.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from typing import Any

from daemon.access.tokens import Caller, Tokens
from daemon.gateway.apis import APIS, CHAT_COMPLETIONS, RESPONSES, Api
from daemon.gateway.apis.responses import build_nothing_stored
from daemon.gateway.calls import GatewayCall
from daemon.gateway.forward import forward
from daemon.gateway.limits import BeyondLimits, estimate_memory, parse_json
from daemon.gateway.metrics import CONTENT_TYPE, GatewayMetrics
from daemon.gateway.replies import (
    ApiError,
    ClientGone,
    Receive,
    Scope,
    Send,
    decompress,
    find_header,
    read_body,
    read_headers,
    send_json,
    send_whole,
)
from daemon.gateway.route_updates import RouteUpdates
from daemon.gateway.routes import Route
from daemon.gateway.tracing import Tracing
from daemon.gateway.upstream import Upstream, open_session


def build_app(
    *,
    routes: RouteUpdates,
    tokens: Mapping[str, str],
    max_body_bytes: int,
    tracing: Tracing | None,
) -> "GatewayApp":
    """Return the gateway's ASGI application, with lifespan.

    `routes` are followed from the application's start to its end.
    `tokens` maps a bearer token to its tenant. Without any there is no authentication, and the
    server must listen on 127.0.0.1 only (`daemon.access.tokens.check_tokens`).
    `max_body_bytes` limits a request's body, as sent and decompressed.
    """
    return GatewayApp(routes, Tokens(tokens), max_body_bytes, tracing)


class GatewayApp:
    """The ASGI application; see `build_app`."""

    def __init__(
        self,
        routes: RouteUpdates,
        tokens: Tokens,
        max_body_bytes: int,
        tracing: Tracing | None,
    ) -> None:
        self._updates = routes
        self._table = routes.table
        self._tokens = tokens
        self._max_body_bytes = max_body_bytes
        self._tracing = tracing
        self._metrics = GatewayMetrics(
            untraced=lambda: tracing.lost if tracing else 0, daemon_silent=lambda: routes.silent_seconds
        )
        self._upstream: Upstream | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            try:
                await self._serve(scope, receive, send)
            except ApiError as problem:
                api = APIS.get(scope["path"], CHAT_COMPLETIONS)
                await send_json(send, api.build_error(problem), problem.status, problem.headers)
            except ClientGone:
                pass  # Nobody is left to answer; the call is counted and traced.

    async def _run_lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(open_session())
            self._upstream = Upstream(session)
            if self._tracing:
                self._tracing.start()
            self._updates.load()
            following = asyncio.create_task(self._updates.follow(session))
            await self._updates.wait_for_first()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following
            if self._tracing:
                await asyncio.to_thread(self._tracing.close)
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if method == "POST" and path in APIS:
            await self._complete(APIS[path], scope, receive, send)
        elif method == "GET" and path == "/v1/models":
            visible = self._table.list_visible(self._find_caller(scope))
            await send_json(send, {"object": "list", "data": [_to_model(route) for route in visible]})
        elif method == "GET" and path.startswith("/v1/models/"):
            route = self._find_route(path.removeprefix("/v1/models/"), self._find_caller(scope))
            await send_json(send, _to_model(route))
        elif method == "GET" and path == "/healthz":
            await send_json(send, {"status": "ok", "daemon": self._updates.describe()})
        elif method == "GET" and path == "/readyz":
            ready = self._table.ready
            status = "ok" if ready else "it is not known yet which versions are active"
            answer = {"status": status, "daemon": self._updates.describe()}
            await send_json(send, answer, 200 if ready else 503)
        elif method == "GET" and path == "/metrics":
            await send_whole(
                send, 200, self._metrics.render(self._find_caller(scope)), {"content-type": CONTENT_TYPE}
            )
        elif path.startswith(f"{RESPONSES.path}/"):
            self._find_caller(scope)
            raise build_nothing_stored("no response can be read, changed or deleted")
        else:
            raise ApiError(404, f"no such route: {method} {path}", code="unknown_url")

    async def _complete(self, api: Api, scope: Scope, receive: Receive, send: Send) -> None:
        caller = self._find_caller(scope)
        sent = await read_body(scope, receive, self._max_body_bytes)
        body = decompress(sent, find_header(scope, b"content-encoding"), self._max_body_bytes)
        request = _parse_request(body)
        api.check_request(request)
        call = GatewayCall(
            api=api,
            route=self._find_route(request["model"], caller),
            request=request,
            request_memory=estimate_memory(body),
            headers=read_headers(scope),
        )
        if self._upstream is None:
            raise ApiError(503, "the gateway is starting", kind="server_error", headers={"retry-after": "1"})
        await forward(call, self._upstream, self._tracing, self._metrics, receive, send)

    def _find_caller(self, scope: Scope) -> Caller:
        # Anthropic's SDKs send the token as a key.
        key = find_header(scope, b"x-api-key")
        caller = self._tokens.find_caller(find_header(scope, b"authorization") or (key and f"Bearer {key}"))
        if caller is None:
            raise ApiError(
                401,
                "a token of your tenant is needed: Authorization: Bearer … (or x-api-key: …)",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )
        return caller

    def _find_route(self, target: str, caller: Caller) -> Route:
        if not self._table.ready:
            raise _not_known("the gateway has not heard from the daemon yet which versions are active")
        route = self._table.find(target, caller)
        if route is None and self._table.is_unknown_to_daemon(target, caller):
            raise _not_known(f"the daemon does not know `{target}` yet; start it with the same targets")
        if route is None:
            raise ApiError(
                404,
                f"the model `{target}` does not exist; ask for `tenant/agent`",
                code="model_not_found",
                param="model",
            )
        return route


def _not_known(why: str) -> ApiError:
    """Return the answer where only a guess could say which version is active."""
    return ApiError(503, why, kind="server_error", headers={"retry-after": "1"})


def _parse_request(body: bytes) -> dict[str, Any]:
    """Parse the body, a JSON object that names a model. Raises ApiError (400)."""
    try:
        request = parse_json(body)
    except BeyondLimits as beyond:
        raise ApiError(400, f"the body {beyond}") from beyond
    except ValueError:
        raise ApiError(400, "the body is not valid JSON") from None
    if not isinstance(request, dict):
        raise ApiError(400, "the body must be a JSON object")
    if not isinstance(request.get("model"), str):
        raise ApiError(400, "`model` must name a target: `tenant/agent`", param="model")
    return request


def _to_model(route: Route) -> dict[str, Any]:
    return {"id": route.target, "object": "model", "created": 0, "owned_by": route.tenant}
