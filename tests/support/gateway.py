"""A running gateway for tests, over a store that a test can change."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from daemon.gateway import ReplicaAddress, Route, Tracing, build_app
from extractors.errors import LearndError
from tests.support.openai_stand_in import serving

HELLO = [{"role": "user", "content": "I was charged twice"}]
ASK = {"model": "acme/routing", "messages": HELLO}


class RouteSource:
    """Stands for the store that the gateway reads; a test can change it, and count the readings."""

    def __init__(self, *routes: Route) -> None:
        self.routes = {route.target: route for route in routes}
        self.broken = False
        self.readings = 0

    def __call__(self) -> Mapping[str, Route]:
        self.readings += 1
        if self.broken:
            raise LearndError("the store cannot be read: this test broke it")
        return dict(self.routes)

    def serve(self, target: str, version: str | None) -> None:
        self.routes[target] = self.routes[target].model_copy(update={"version": version})


def route(*urls: str, target: str = "acme/routing", version: str | None = None, **changes: Any) -> Route:
    tenant, agent = target.split("/")
    replicas = tuple(ReplicaAddress(name=f"r{n}", url=url, base_name="base") for n, url in enumerate(urls))
    fields = {"project": "support", "version": version, "replicas": replicas, **changes}
    return Route(target=target, tenant=tenant, agent=agent, **fields)


@contextmanager
def gateway(
    store: RouteSource,
    *,
    tokens: Mapping[str, str] | None = None,
    max_body_bytes: int = 2**20,
    tracing: Tracing | None = None,
) -> Iterator[httpx.Client]:
    """A running gateway, and a client of it."""
    app = build_app(
        routes=store,
        tokens=tokens or {},
        refresh_seconds=0.05,
        max_body_bytes=max_body_bytes,
        tracing=tracing,
    )
    with serving(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client
