"""The daemon's HTTP API: monitoring, the agents' routes and the operators' routes in one application."""

import re
from collections.abc import Callable
from datetime import datetime

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from daemon.access.accounts import check_tokens_are_apart
from daemon.access.bodies import FORM, JSON, SMALL_BODY, BodyLimits, BodyRule
from daemon.access.credentials import CredentialsFirst
from daemon.access.middleware import SecurityHeaders
from daemon.access.origins import OriginGuard
from daemon.access.sign_in import Authenticator
from daemon.api.agents import ActiveVersion, AdapterFiles, build_agents_router, build_caller_dependency
from daemon.api.batches import NDJSON
from daemon.api.gateways import RouteReader, build_gateways_router
from daemon.api.monitoring import build_health_router, build_monitoring_router
from daemon.api.operators import PREFIX, add_error_handlers, build_operators_router
from daemon.monitoring.metrics import Metrics
from daemon.runtime.paths import adapter_folder
from daemon.runtime.version import VERSION
from daemon.settings.load import Settings
from daemon.views.status import Health
from registry.store.store import Store
from registry.store.versions import UnknownVersion

BODY_RULES = (
    BodyRule(re.compile(f"{PREFIX}/batches/[^/]+/import"), 64 * 2**20, (NDJSON,)),
    # Edited items stand in it.
    BodyRule(re.compile(f"{PREFIX}/batches/[^/]+/decisions"), 2**20, (JSON,)),
    BodyRule(re.compile(r"/console/_nicegui/client/.*"), 65 * 2**20, ("multipart/form-data",)),
    BodyRule(re.compile(r"/console/_nicegui_ws/.*"), 2**20, ()),
    BodyRule(re.compile(r"/console/.*"), SMALL_BODY, (FORM,)),
)
"""The bodies that are no JSON, or larger than most."""


def build_api(
    settings: Settings,
    store: Store,
    authenticator: Authenticator,
    health: Health,
    metrics: Metrics,
    clock: Callable[[], datetime],
    is_stopping: Callable[[], bool] = lambda: False,
) -> FastAPI:
    """Build the API of `learnd run`. `clock` returns aware UTC; `is_stopping` tells that the server ends.

    Raises TokensMissing where one token is for two kinds of callers, and SettingsError where a file of
    tokens cannot be read.
    """
    agents, operators = settings.agents.read_tokens(), settings.operators.read_tokens()
    gateway = settings.gateway.read_daemon_token()
    check_tokens_are_apart(agents, operators, gateway)
    # The page at /docs loads its scripts from here, not from a CDN.
    api = FastAPIOffline(title="learnd", version=VERSION, redoc_url=None, static_url="/docs-assets")
    # What is added last is asked first.
    api.add_middleware(BodyLimits, rules=BODY_RULES)
    api.add_middleware(CredentialsFirst, authenticator=authenticator, prefix=PREFIX)
    own = settings.daemon
    api.add_middleware(OriginGuard, allowed_hosts=own.allowed_hosts, listens_on=own.host)
    api.add_middleware(SecurityHeaders)
    add_error_handlers(api)
    adapters = _AdapterReader(settings, store)
    api.include_router(build_operators_router(settings, store, authenticator, health, clock))
    api.include_router(
        build_agents_router(
            find_active=adapters.find_active,
            find_files=adapters.find_files,
            tokens=agents,
            cache_seconds=settings.agents.cache_seconds,
            operators=operators,
        )
    )
    api.include_router(
        build_gateways_router(
            RouteReader(settings, store), token=gateway, agents=agents, is_stopping=is_stopping
        )
    )
    api.include_router(build_health_router(settings, health))
    find_caller = build_caller_dependency(agents, operators)
    api.include_router(build_monitoring_router(settings, store, health, metrics, find_caller))
    return api


class _AdapterReader:
    """Reads from the store what agents may know."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._targets = {target.key: target for target in settings.targets}

    def find_active(self, key: str) -> ActiveVersion | None:
        """Return what serves the target `key` now; None for an unknown target."""
        target = self._targets.get(key)
        if target is None:
            return None
        version = self._store.find_active_version(key)
        replicas = self._settings.find_replicas(target)
        base = replicas[0].base_name if replicas else ""
        return ActiveVersion(
            target=key,
            version=version.id if version else None,
            model=version.id if version else base,
            replica_urls=tuple(replica.url for replica in replicas),
            files=version.files if version else {},
        )

    def find_files(self, version_id: str) -> AdapterFiles | None:
        """Return the files of a version; None where there is no such version, or its files are gone."""
        try:
            version = self._store.version(version_id)
        except UnknownVersion:
            return None
        target = self._targets.get(version.target)
        if target is None or version.files_removed_at is not None:
            return None
        folder = adapter_folder(self._settings.data_dir, version)
        return AdapterFiles(tenant=target.tenant, folder=folder, files=version.files)
