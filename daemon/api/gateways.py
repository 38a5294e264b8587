"""The route from which gateways learn which version is active, at once when that changes.

A gateway sends the tag of what it knows (`If-None-Match`) and how long it would wait for something else
(`Prefer: wait=10`, RFC 7240). While anybody waits, one task reads the store a few times a second for all of
them: the command line changes it from processes of its own.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, Header, HTTPException, Response

from daemon.access.tokens import TokenDigests, parse_bearer
from daemon.api.refusals import INSIDE, refuse_with
from daemon.runtime.gateway_routes import ROUTES_PATH, GatewayRoutes, TargetRoute
from daemon.settings.load import Settings
from registry.store.store import Store

READ_SECONDS = 0.25
"""Time between two readings of the store while somebody waits."""
LONGEST_WAIT = 60
"""Seconds that an answer is held back at most, whatever a gateway prefers."""
WAIT = re.compile(r"\s*wait\s*=\s*\"?([0-9]{1,9})\"?\s*(?:;.*)?", re.IGNORECASE)
TAG = re.compile(r'(?:W/)?"([^"]*)"')


class RouteWatch:
    """Reads the routes, and again and again while somebody waits for a change."""

    def __init__(self, read: Callable[[], GatewayRoutes], is_stopping: Callable[[], bool]) -> None:
        """`read` reads the store, in a thread; `is_stopping` tells that the server ends."""
        self._read = read
        self._is_stopping = is_stopping
        self._next: asyncio.Task[GatewayRoutes] | None = None

    async def wait_for_change(self, known: frozenset[str], seconds: float) -> GatewayRoutes:
        """Return the routes, once their tag is none of `known`, `seconds` have passed, or the server ends."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        routes = await asyncio.to_thread(self._read)
        while routes.tag in known:
            is_last = loop.time() >= deadline or self._is_stopping()
            if is_last:
                break
            routes = await self._read_together()
        return routes

    async def _read_together(self) -> GatewayRoutes:
        """Return the next reading, which all who wait share."""
        if self._next is None or self._next.done():
            self._next = asyncio.create_task(self._read_later())
        return await asyncio.shield(self._next)

    async def _read_later(self) -> GatewayRoutes:
        await asyncio.sleep(READ_SECONDS)
        return await asyncio.to_thread(self._read)


def build_gateways_router(
    read: Callable[[], GatewayRoutes],
    *,
    token: str | None,
    agents: Mapping[str, str],
    is_stopping: Callable[[], bool],
) -> APIRouter:
    """Build the gateways' route. `token` is theirs; without it, and without agents' tokens, it is open."""
    router = APIRouter(tags=["gateways"])
    watch = RouteWatch(read, is_stopping)
    gateway = build_gateway_dependency(token, agents)

    @router.get(
        ROUTES_PATH,
        response_model=GatewayRoutes,
        responses={
            304: {"description": "What `If-None-Match` names is still right."},
            **refuse_with(*INSIDE),
        },
        dependencies=[Depends(gateway)],
    )
    async def get_routes(
        if_none_match: Annotated[str, Header()] = "", prefer: Annotated[str, Header()] = ""
    ) -> Response:
        """The version that each target's agents get, for gateways, with an `ETag`.

        With `If-None-Match: TAG` and `Prefer: wait=SECONDS` the answer waits until something has changed, for
        at most 60 seconds; then it is 304.
        """
        known, seconds = parse_tags(if_none_match), parse_wait(prefer)
        routes = await watch.wait_for_change(known, seconds)
        headers = {"ETag": f'"{routes.tag}"', "Cache-Control": "no-cache", "Vary": "Prefer"}
        if seconds:
            headers["Preference-Applied"] = f"wait={seconds}"
        if routes.tag in known:
            return Response(status_code=304, headers=headers)
        return Response(routes.model_dump_json(), headers=headers, media_type="application/json")

    return router


def build_gateway_dependency(token: str | None, agents: Mapping[str, str]) -> Callable[..., None]:
    """Return a FastAPI dependency that lets only gateways in; 401 for everybody else."""
    gateways = TokenDigests({token: "gateway"} if token else {})
    is_open = token is None and not agents

    def check_gateway(authorization: Annotated[str | None, Header()] = None) -> None:
        if not is_open and gateways.get(parse_bearer(authorization)) is None:
            why = (
                "this route is for gateways: it needs the token of the daemon's setting gateway.daemon_token"
            )
            raise HTTPException(401, why, headers={"WWW-Authenticate": "Bearer"})

    return check_gateway


class RouteReader:
    """Reads which version is active, for every target of the settings."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._targets = [target.key for target in settings.targets]
        self._store = store
        self._last: tuple[dict[str, str], GatewayRoutes] | None = None

    def __call__(self) -> GatewayRoutes:
        """Return the routes as the store has them now; what has not changed is not built again."""
        active, last = self._store.find_active_ids(), self._last
        if last is not None and last[0] == active:
            return last[1]
        versions = {key: TargetRoute(version=active.get(key)) for key in self._targets}
        routes = GatewayRoutes(routes=versions)
        self._last = active, routes
        return routes


def parse_tags(if_none_match: str) -> frozenset[str]:
    """Return the tags of an `If-None-Match` header (RFC 9110, section 13.1.2)."""
    return frozenset(TAG.findall(if_none_match))


def parse_wait(prefer: str) -> int:
    """Return the seconds that a `Prefer` header asks to wait, at most `LONGEST_WAIT`; 0 without."""
    waits = (WAIT.fullmatch(preference) for preference in prefer.split(","))
    return next((min(int(wait[1]), LONGEST_WAIT) for wait in waits if wait), 0)
