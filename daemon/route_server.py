"""Tells gateways which version is active while no daemon runs: during `learnd once`, and in the demo."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from fastapi import FastAPI

from daemon.access.accounts import check_tokens_are_apart
from daemon.access.origins import OriginGuard
from daemon.access.tokens import check_tokens
from daemon.api.gateways import RouteReader, build_gateways_router
from daemon.api.operators import add_error_handlers
from daemon.runtime.http_server import HttpLimits, build_server
from daemon.runtime.listening import PortTaken, open_socket
from daemon.settings.load import Settings
from registry.store.store import Store

log = structlog.get_logger()
GRACE_SECONDS = 2


@contextmanager
def serve_routes(settings: Settings, store: Store) -> Iterator[None]:
    """Answer gateways at the daemon's address during the block, and nobody else.

    Where somebody else listens there, that is logged, and gateways hear of changes when a daemon runs again.
    Raises TokensMissing, SettingsError.
    """
    check_tokens(settings.daemon.host, settings.agents.read_tokens())
    try:
        listening = open_socket(settings.daemon.host, settings.daemon.port, "daemon.port")
    except PortTaken as taken:
        log.warning("gateways are not told of changes now", reason=str(taken))
        yield
        return
    with listening:
        server = build_server(
            _build_app(settings, store, lambda: server.should_exit),
            grace_seconds=GRACE_SECONDS,
            websockets=False,
            limits=HttpLimits(),
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="route-server")
        thread.start()
        try:
            yield
        finally:
            server.should_exit = True
            thread.join()


def _build_app(settings: Settings, store: Store, is_stopping: Callable[[], bool]) -> FastAPI:
    agents, gateway = settings.agents.read_tokens(), settings.gateway.read_daemon_token()
    check_tokens_are_apart(agents, settings.operators.read_tokens(), gateway)
    app = FastAPI(openapi_url=None)
    own = settings.daemon
    app.add_middleware(OriginGuard, allowed_hosts=own.allowed_hosts, listens_on=own.host)
    add_error_handlers(app)
    app.include_router(
        build_gateways_router(
            RouteReader(settings, store), token=gateway, agents=agents, is_stopping=is_stopping
        )
    )
    return app
