"""Routes for monitoring: health checks, metrics, and the status of the targets."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from daemon.access.tokens import Caller
from daemon.api.refusals import INSIDE, refuse_with
from daemon.monitoring.metrics import Metrics, metrics_page
from daemon.runtime.version import VERSION
from daemon.settings.load import Settings
from daemon.views.status import Health, RunningTargetStatus, read_running_status
from extractors.values import Value
from registry.store.store import Store


class ReadyState(Value):
    """The health of the jobs of all targets."""

    ready: bool
    targets_with_problems: int
    targets_with_late_jobs: int
    """Targets of which a job did not run when it should have."""


def build_health_router(settings: Settings, health: Health) -> APIRouter:
    """Build the routes of the health checks, which are open to everybody."""
    router = APIRouter()

    @router.get("/healthz")
    def healthz() -> dict[str, str]:
        """Say that the process is alive."""
        return {"status": "ok", "version": VERSION}

    @router.get("/readyz", responses={503: {"model": ReadyState, "description": "Not all are well."}})
    def readyz(response: Response) -> ReadyState:
        """Say whether the jobs of all targets are well; 503 if one is not.

        Cycles that Phoenix has not yet received do not count as a problem here.
        """
        found = [health.read(target.key).problems.keys() for target in settings.targets]
        ill, late = sum(bool(jobs - {"publish"}) for jobs in found), sum("watchdog" in jobs for jobs in found)
        response.status_code = 503 if ill else 200
        return ReadyState(ready=not ill, targets_with_problems=ill, targets_with_late_jobs=late)

    return router


def build_monitoring_router(
    settings: Settings, store: Store, health: Health, metrics: Metrics, find_caller: Callable[..., Caller]
) -> APIRouter:
    """Build the routes of metrics and status; `find_caller` is the dependency that identifies an agent."""
    router = APIRouter(responses=refuse_with(*INSIDE))

    @router.get("/metrics", response_class=PlainTextResponse)
    def get_metrics(by: Annotated[Caller, Depends(find_caller)]) -> Response:
        """Metrics of the caller's targets, in Prometheus' text format."""
        return Response(metrics_page(metrics.registry, by), media_type=CONTENT_TYPE_LATEST)

    @router.get("/v1/status")
    def get_status(by: Annotated[Caller, Depends(find_caller)]) -> list[RunningTargetStatus]:
        """Status of the caller's targets, as `learnd status` shows it, with job problems and progress."""
        return [
            status
            for status in read_running_status(settings, store, health)
            if by.may_see(status.target.partition("/")[0])
        ]

    return router
