"""The daemon's HTTP API: health, metrics, status, and what agents ask for."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Response
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST

from daemon.access.accounts import check_tokens_are_apart
from daemon.access.middleware import BodyLimit, SecurityHeaders
from daemon.access.sign_in import Authenticator
from daemon.access.tokens import Caller
from daemon.api.agents import ActiveVersion, AdapterFiles, build_agents_router, build_caller_dependency
from daemon.api.operators import add_error_handlers, build_operators_router
from daemon.monitoring.metrics import Metrics, metrics_page
from daemon.runtime.paths import adapter_folder
from daemon.runtime.version import VERSION
from daemon.settings.load import Settings
from daemon.views.status import Health, RunningTargetStatus, read_running_status
from registry.store.store import Store
from registry.store.versions import UnknownVersion

MOST_BODY = 64 * 2**20
"""Bytes of a request: a reviewed batch is the largest there is."""


def build_api(
    settings: Settings,
    store: Store,
    tokens: Mapping[str, str],
    door: Authenticator,
    health: Health,
    metrics: Metrics,
    clock: Callable[[], datetime],
) -> FastAPI:
    """The API of `learnd run`. `tokens` maps an agent's bearer token to its tenant.

    Raises TokensMissing where a token is an agent's and an operator's.
    """
    operators_tokens = settings.operators.read_tokens()
    check_tokens_are_apart(tokens, operators_tokens)
    # The page at /docs loads its scripts from here, not from a CDN.
    api = FastAPIOffline(title="learnd", version=VERSION, redoc_url=None, static_url="/docs-assets")
    api.add_middleware(BodyLimit, most=MOST_BODY)
    api.add_middleware(SecurityHeaders)
    add_error_handlers(api)
    files, caller = _AgentsView(settings, store), build_caller_dependency(tokens, operators_tokens)
    api.include_router(build_operators_router(settings, store, door, health, clock))
    api.include_router(
        build_agents_router(
            active=files.active,
            adapter=files.adapter,
            tokens=tokens,
            cache_seconds=settings.agents.cache_seconds,
            operators=operators_tokens,
        )
    )

    @api.get("/healthz")
    def healthz() -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok", "version": VERSION}

    @api.get("/readyz")
    def readyz(response: Response) -> dict[str, Any]:
        """Every target's jobs are well; 503 where one is not. What Phoenix has not got holds nothing up."""
        ill = sum(bool(health.read(target.key).problems.keys() - {"publish"}) for target in settings.targets)
        response.status_code = 503 if ill else 200
        return {"ready": not ill, "targets_with_problems": ill}

    @api.get("/metrics")
    def get_metrics(by: Annotated[Caller, Depends(caller)]) -> Response:
        """For Prometheus: the figures of the caller's targets."""
        return Response(metrics_page(metrics.registry, by), media_type=CONTENT_TYPE_LATEST)

    @api.get("/v1/status")
    def get_status(by: Annotated[Caller, Depends(caller)]) -> list[RunningTargetStatus]:
        """What `learnd status` shows, with the jobs' problems and the running cycle's progress."""
        return [
            status
            for status in read_running_status(settings, store, health)
            if by.sees(status.target.partition("/")[0])
        ]

    return api


class _AgentsView:
    """What agents may know of the store."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self.build_targets_router = {target.key: target for target in settings.targets}

    def active(self, key: str) -> ActiveVersion | None:
        """What serves the target `key` now; None for an unknown one."""
        target = self.build_targets_router.get(key)
        if target is None:
            return None
        version = self._store.active(key)
        replicas = self._settings.find_replicas(target)
        base = replicas[0].base_name if replicas else ""
        return ActiveVersion(
            target=key,
            version=version.id if version else None,
            model=version.id if version else base,
            replica_urls=tuple(replica.url for replica in replicas),
            files=version.files if version else {},
        )

    def adapter(self, version_id: str) -> AdapterFiles | None:
        """The files of a version; None where there is none, or they are gone."""
        try:
            version = self._store.version(version_id)
        except UnknownVersion:
            return None
        target = self.build_targets_router.get(version.target)
        if target is None or version.files_removed_at is not None:
            return None
        folder = adapter_folder(self._settings.data_dir, version)
        return AdapterFiles(tenant=target.tenant, folder=folder, files=version.files)
