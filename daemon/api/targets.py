"""Routes for targets: status, data, hold, start."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException

from daemon.access.accounts import Person
from daemon.access.sign_in import Authenticator
from daemon.api.parameters import ActReason, Limit, Offset, ServingState
from daemon.api.versions import Activation
from daemon.runtime.context import TargetContext
from daemon.serving.promotion import Promoter
from daemon.settings.load import Settings
from daemon.settings.target import TargetSettings
from daemon.settings.types import SettingsError
from daemon.views.data_summary import DataSummary, ShownExample, SpanLink, TargetData
from daemon.views.status import Health, RunningTargetStatus, read_running_status
from extractors.examples.types import Origin
from extractors.values import Value
from registry.store.store import Store
from trainers.planning.plan import ExampleKind


class RequestedCycle(Value):
    """A cycle that will begin."""

    target: str


def build_targets_router(settings: Settings, store: Store, health: Health) -> APIRouter:
    """Build the routes that show targets."""
    router = APIRouter(prefix="/targets", tags=["targets"])

    Target = Annotated[TargetSettings, Depends(_build_target_dependency(settings))]  # noqa: N806 - a type

    @router.get("")
    def list_targets() -> list[RunningTargetStatus]:
        """The targets, with their data against thresholds, last cycle, active version, batches and health."""
        return read_running_status(settings, store, health)

    @router.get("/{tenant}/{agent}")
    def show_target(target: Target) -> RunningTargetStatus:
        """One target, as in the list."""
        statuses = read_running_status(settings, store, health)
        return next(status for status in statuses if status.target == target.key)

    return router


def build_target_actions_router(
    settings: Settings, store: Store, authenticator: Authenticator, clock: Callable[[], datetime]
) -> APIRouter:
    """Build the routes that start a cycle of a target, roll it back, hold it and release it."""
    router = APIRouter(prefix="/targets", tags=["targets"])
    Target = Annotated[TargetSettings, Depends(_build_target_dependency(settings))]  # noqa: N806 - a type

    @router.post("/{tenant}/{agent}/start", status_code=202)
    def start(target: Target, by: Annotated[Person, Depends(authenticator.authorize)]) -> RequestedCycle:
        """Start a cycle within seconds, whatever the schedule says; 409 while one is running."""
        store.request_cycle(target.key, actor=by.name, now=clock())
        return RequestedCycle(target=target.key)

    @router.post("/{tenant}/{agent}/rollback")
    def roll_back(
        target: Target, body: Activation, by: Annotated[Person, Depends(authenticator.authorize)]
    ) -> ServingState:
        """Serve the version before again, and hold the target: nothing is promoted until the release."""
        live = Promoter(settings, store, clock).roll_back(
            target, actor=by.name, reason=body.reason, instead_of=body.instead_of
        )
        return ServingState(target=target.key, active_version=live.id if live else None, held=True)

    @router.post("/{tenant}/{agent}/hold")
    def hold(
        target: Target, body: ActReason, by: Annotated[Person, Depends(authenticator.authorize)]
    ) -> ServingState:
        """Hold a target: nothing is promoted automatically until the release; what is live stays live."""
        store.hold(target.key, by.name, body.reason, clock())
        active = store.find_active_version(target.key)
        return ServingState(target=target.key, active_version=active.id if active else None, held=True)

    @router.post("/{tenant}/{agent}/release")
    def release(target: Target, by: Annotated[Person, Depends(authenticator.authorize)]) -> ServingState:
        """Release a target that is on hold: it promotes automatically again."""
        store.release(target.key, actor=by.name, now=clock())
        active = store.find_active_version(target.key)
        return ServingState(target=target.key, active_version=active.id if active else None, held=False)

    return router


def build_data_router(settings: Settings, store: Store, clock: Callable[[], datetime]) -> APIRouter:
    """Build the routes that show a target's data."""
    router = APIRouter(prefix="/targets", tags=["data"])
    Target = Annotated[TargetSettings, Depends(_build_target_dependency(settings))]  # noqa: N806 - a type

    def read(target: TargetSettings) -> TargetData:
        return TargetData.read(TargetContext(settings, target, store, clock))

    @router.get("/{tenant}/{agent}/data")
    def show_data(target: Target) -> DataSummary:
        """Examples by kind and origin against the thresholds, and dropped spans by reason. Takes seconds."""
        return read(target).summarise()

    @router.get("/{tenant}/{agent}/examples")
    def list_examples(
        target: Target, kind: ExampleKind, origin: Origin | None = None, offset: Offset = 0, limit: Limit = 50
    ) -> tuple[ShownExample, ...]:
        """Examples that a cycle started now would train and validate on, newest first. Takes seconds."""
        return read(target).list_examples(kind, origin, offset=offset, limit=limit)

    @router.get("/{tenant}/{agent}/dropped")
    def list_dropped(target: Target, reason: str) -> tuple[SpanLink, ...]:
        """The newest spans that were dropped for a `reason` that `/data` lists. Takes seconds."""
        return read(target).list_dropped_spans(reason)

    return router


def _build_target_dependency(settings: Settings) -> Callable[[str, str], TargetSettings]:
    """Return a FastAPI dependency: the target that a path names; 404 for an unknown one."""

    def find_target(tenant: str, agent: str) -> TargetSettings:
        try:
            return settings.find_target(f"{tenant}/{agent}")
        except SettingsError as unknown:
            raise HTTPException(404, str(unknown)) from None

    return find_target
