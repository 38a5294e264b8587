"""`learnd gateway`: the gateway as its own process, which the daemon tells what to serve."""

import os
from collections.abc import Iterator
from contextlib import suppress

from daemon.access.origins import OriginGuard
from daemon.access.tokens import check_gateway_token, check_tokens
from daemon.gateway.app import build_app
from daemon.gateway.route_file import RouteFile
from daemon.gateway.route_updates import DaemonAddress, RouteUpdates
from daemon.gateway.routes import ReplicaAddress, RouteTable, ServedTarget
from daemon.gateway.tracing import Tracing
from daemon.runtime.clock import utc_now
from daemon.runtime.http_server import HttpLimits, build_server
from daemon.runtime.listening import open_socket
from daemon.settings.load import Settings

SHUTDOWN_SECONDS = 60
"""Time that requests in flight have to end when the gateway is stopped."""
LIMITS = HttpLimits(files_per_connection=3)
"""Limits of agents' connections. Each call has a second connection, to a replica."""


def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. Requests in flight are answered first, within a minute.

    Raises PortTaken, SettingsError, TokensMissing and StateDirUnusable.
    """
    tokens, own = settings.agents.read_tokens(), settings.gateway
    check_tokens(own.host, tokens)
    daemon = DaemonAddress(settings.daemon_url, own.read_daemon_token())
    check_gateway_token(tokens, daemon.token)
    with open_socket(own.host, own.port, "gateway.port") as listening:
        os.umask(0o077)  # What it writes is nobody else's to read.
        file = RouteFile(settings.gateway_state_dir)
        file.prepare()
        app = build_app(
            routes=RouteUpdates(daemon, RouteTable(list_targets(settings)), file, utc_now),
            tokens=tokens,
            max_body_bytes=int(own.max_body_mb * 2**20),
            tracing=Tracing(settings.phoenix.url, settings.phoenix.read_key()) if own.trace else None,
        )
        # A web page has no token, and would need none.
        guarded = app if tokens else OriginGuard(app, allowed_hosts=(), listens_on=own.host)
        server = build_server(guarded, grace_seconds=SHUTDOWN_SECONDS, websockets=False, limits=LIMITS)
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listening])


def list_targets(settings: Settings) -> Iterator[ServedTarget]:
    """Yield what the settings say of each target. Raises SettingsError where a key cannot be read."""
    for target in settings.targets:
        yield ServedTarget(
            target=target.key,
            tenant=target.tenant,
            agent=target.agent,
            project=target.project,
            replicas=tuple(
                ReplicaAddress(name=r.name, url=r.url, base_name=r.base_name, api_key=r.read_key())
                for r in settings.find_replicas(target)
            ),
        )
