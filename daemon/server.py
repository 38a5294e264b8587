"""The daemon's HTTP server: the API and the console in one application, at one port."""

from collections.abc import Callable, Mapping
from datetime import datetime

import uvicorn

from daemon.access.accounts import Operators
from daemon.access.sign_in import Authenticator
from daemon.api.app import build_api
from daemon.monitoring.metrics import Metrics
from daemon.runtime.http_server import HttpLimits, build_server
from daemon.settings.load import Settings
from daemon.views.status import Health
from registry.store.store import Store

GRACE_SECONDS = 10
"""Seconds that requests have to finish when the daemon is told to stop."""


def build_daemon_server(
    settings: Settings,
    store: Store,
    health: Health,
    metrics: Metrics,
    tokens: Mapping[str, str],
    clock: Callable[[], datetime],
) -> uvicorn.Server:
    """Build the server of API and console; `tokens` maps agents' tokens to tenants, and
    `clock` returns aware UTC. Raises SettingsError.
    """
    # The commands import this module, and should not wait for the pages' library.
    from daemon.console.base.context import ConsoleContext
    from daemon.console.mount import add_console

    operators = Operators(settings.operators, clock)
    authenticator = Authenticator(operators, tokens)
    api = build_api(
        settings, store, authenticator, health, metrics, clock, is_stopping=lambda: server.should_exit
    )
    add_console(api, ConsoleContext(settings, store, health, operators, clock), authenticator)
    server = build_server(api, grace_seconds=GRACE_SECONDS, websockets=True, limits=HttpLimits())
    return server
