"""A running gateway for tests, over a store that a test can change."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from fastapi import FastAPI
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from daemon.api.gateways import build_gateways_router
from daemon.api.operators import add_error_handlers
from daemon.gateway import ReplicaAddress, Route, Tracing, build_app
from daemon.gateway.replies import read_body, send_whole
from daemon.gateway.route_file import RouteFile
from daemon.gateway.route_updates import DaemonAddress, RouteUpdates
from daemon.gateway.routes import RouteTable
from daemon.gateway.run import LIMITS
from daemon.runtime.clock import utc_now
from daemon.runtime.gateway_routes import GatewayRoutes, TargetRoute
from daemon.runtime.http_server import HttpLimits, build_server
from daemon.runtime.listening import open_socket
from extractors.errors import LearndError
from tests.support.openai_stand_in import App, StandIn, serving
from tests.support.phoenix import wait_until

HELLO = [{"role": "user", "content": "I was charged twice"}]
ASK = {"model": "acme/routing", "messages": HELLO}


@dataclass(frozen=True)
class TracedCall:
    """A call as its span tells it."""

    error: str | None
    """The message of an ERROR status; None where the status is OK."""
    attributes: dict[str, str | int | bool]

    @classmethod
    def read(cls, span: Any) -> "TracedCall":
        """Read a span as it comes over OTLP."""
        assert span.status.code in (Status.STATUS_CODE_OK, Status.STATUS_CODE_ERROR)
        failed = span.status.code == Status.STATUS_CODE_ERROR
        return cls(
            error=span.status.message if failed else None,
            attributes={
                each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes
            },
        )

    def find(self, prefix: str) -> dict[str, str | int | bool]:
        """Return the attributes below `prefix`, without it."""
        return {
            key.removeprefix(f"{prefix}."): value
            for key, value in self.attributes.items()
            if key.startswith(f"{prefix}.")
        }


class RouteSource:
    """Stands for the daemon's store; a test can change it, and count the readings."""

    def __init__(self, *routes: Route) -> None:
        self.routes = {route.target: route for route in routes}
        self.broken = False
        self.readings = 0

    def __call__(self) -> GatewayRoutes:
        self.readings += 1
        if self.broken:
            raise LearndError("the store cannot be read: this test broke it")
        return GatewayRoutes(
            routes={key: TargetRoute(version=route.version) for key, route in self.routes.items()}
        )

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
    limits: HttpLimits = LIMITS,
    table: RouteTable | None = None,
    daemon_token: str | None = None,
    daemon_asks_for: str | None = None,
) -> Iterator[httpx.Client]:
    """A running gateway, and a client of it; the daemon's route for gateways is served beside it."""
    with TemporaryDirectory() as folder, serving_routes(store, daemon_asks_for) as daemon:
        app = build_app(
            routes=RouteUpdates(
                DaemonAddress(daemon, daemon_token),
                table or RouteTable(store.routes.values()),
                RouteFile(Path(folder)),
                utc_now,
            ),
            tokens=tokens or {},
            max_body_bytes=max_body_bytes,
            tracing=tracing,
        )
        with _serve_limited(app, limits) as url, httpx.Client(base_url=url, timeout=30) as client:
            yield client


@contextmanager
def serving_routes(store: RouteSource, token: str | None = None) -> Iterator[str]:
    """Serve the daemon's route for gateways, over `store`; gives its base URL."""
    stopping = threading.Event()
    app = FastAPI()
    add_error_handlers(app)
    app.include_router(build_gateways_router(store, token=token, agents={}, is_stopping=stopping.is_set))
    with serving(app) as url:
        try:
            yield url
        finally:
            stopping.set()


@contextmanager
def _serve_limited(app: App, limits: HttpLimits) -> Iterator[str]:
    """Serve the gateway by its own server, from a thread; gives its base URL."""
    with open_socket("127.0.0.1", 0, "port") as listening:
        server = build_server(app, grace_seconds=5, websockets=False, limits=limits)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        wait_until(lambda: server.started, 20, "the gateway to start")
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


class Collector:
    """A stand-in for Phoenix's OTLP endpoint: it keeps the spans, and may first refuse some batches."""

    def __init__(self, *, refuse: int = 0, status: int = 503) -> None:
        self.spans: list[Any] = []
        self._refuse = refuse
        self._status = status

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, status = await read_body(scope, receive, limit=2**30), 200
        if self._refuse:
            self._refuse, status = self._refuse - 1, self._status
        else:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.spans += [span for scoped in resource.scope_spans for span in scoped.spans]
        await send_whole(send, status, b"", {})


@contextmanager
def traced_gateway(replica: StandIn) -> Iterator[tuple[httpx.Client, list[TracedCall]]]:
    """A gateway before `replica`; the list holds its calls as they were traced, once the block has ended."""
    collector = Collector()
    calls: list[TracedCall] = []
    with serving(replica) as url, serving(collector) as phoenix:
        with gateway(RouteSource(route(url)), tracing=Tracing(phoenix)) as client:
            yield client, calls
        calls += [TracedCall.read(span) for span in collector.spans]
