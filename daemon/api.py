"""The daemon's HTTP API: health, metrics, status, and what agents ask for."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from daemon.agents_api import ActiveVersion, agents_router
from daemon.metrics import Metrics
from daemon.promotion import adapter_folder
from daemon.settings import Settings, TargetSettings
from daemon.status import Health, status
from learnd import __version__
from registry.store import Store


def build_api(
    settings: Settings, store: Store, tokens: Mapping[str, str], health: Health, metrics: Metrics
) -> FastAPI:
    """The API of `learnd run`. `tokens` maps an agent's bearer token to its tenant."""
    api = FastAPI(title="learnd", version=__version__, docs_url="/docs", redoc_url=None)

    @api.get("/healthz")
    def healthz() -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok", "version": __version__}

    @api.get("/readyz")
    def readyz(response: Response) -> dict[str, Any]:
        """Every target's jobs are well; 503 with the problems where they are not."""
        problems = {
            target.key: found for target in settings.targets if (found := health.of(target.key)["problems"])
        }
        response.status_code = 503 if problems else 200
        return {"ready": not problems, "targets_with_problems": len(problems)}

    @api.get("/metrics")
    def metrics_page() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    if not tokens:
        # Without tokens we listen on this machine alone, and whoever asks is its operator.
        @api.get("/v1/status")
        def status_page() -> list[dict[str, Any]]:
            return [entry | health.of(entry["target"]) for entry in status(settings, store)]

    def active(target_key: str) -> ActiveVersion | None:
        target = next((t for t in settings.targets if t.key == target_key), None)
        return _active_version(settings, store, target) if target else None

    api.include_router(agents_router(active, tokens))
    return api


def _active_version(settings: Settings, store: Store, target: TargetSettings) -> ActiveVersion:
    raise AssertionError(adapter_folder)
