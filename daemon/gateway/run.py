"""`learnd gateway`: the gateway as its own process, reading the store that the daemon writes."""

from collections.abc import Mapping
from contextlib import suppress

from daemon.access.origins import OriginGuard
from daemon.access.tokens import check_tokens
from daemon.gateway.app import build_app
from daemon.gateway.routes import ReplicaAddress, Route
from daemon.gateway.tracing import Tracing
from daemon.runtime.clock import utc_now
from daemon.runtime.http_server import HttpLimits, build_server
from daemon.runtime.listening import open_socket
from daemon.settings.load import Settings
from daemon.settings.target import TargetSettings
from registry.store.store import Store

SHUTDOWN_SECONDS = 60
"""Time that requests in flight have to end when the gateway is stopped."""
LIMITS = HttpLimits(files_per_connection=3)
"""Limits of agents' connections. Each call has a second connection, to a replica."""


def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. Requests in flight are answered first, within a minute.

    Raises PortTaken and SettingsError.
    """
    tokens, own = settings.agents.read_tokens(), settings.gateway
    check_tokens(own.host, tokens)
    with (
        open_socket(own.host, own.port, "gateway.port") as listening,
        Store.open(settings.data_dir, utc_now()) as store,
    ):
        app = build_app(
            routes=lambda: read_routes(settings, store),
            tokens=tokens,
            refresh_seconds=own.refresh_seconds,
            max_body_bytes=int(own.max_body_mb * 2**20),
            tracing=Tracing(settings.phoenix.url, settings.phoenix.read_key()) if own.trace else None,
        )
        # A web page has no token, and would need none.
        guarded = app if tokens else OriginGuard(app, allowed_hosts=(), listens_on=own.host)
        server = build_server(guarded, grace_seconds=SHUTDOWN_SECONDS, websockets=False, limits=LIMITS)
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listening])


def read_routes(settings: Settings, store: Store) -> Mapping[str, Route]:
    """Read the route of each alias: to the active version, or to the base model."""
    active = store.find_active_versions()
    return {
        target.key: _build_route(settings, target, active[target.key].id if target.key in active else None)
        for target in settings.targets
    }


def _build_route(settings: Settings, target: TargetSettings, version: str | None) -> Route:
    return Route(
        target=target.key,
        tenant=target.tenant,
        agent=target.agent,
        project=target.project,
        version=version,
        replicas=tuple(
            ReplicaAddress(name=r.name, url=r.url, base_name=r.base_name, api_key=r.read_key())
            for r in settings.find_replicas(target)
        ),
    )
