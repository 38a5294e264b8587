"""Routes for adapter versions: list, activate, reject, roll back."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field

from daemon.access.accounts import Person
from daemon.access.sign_in import Authenticator
from daemon.api.parameters import ActReason, ServingState, TargetFilter
from daemon.serving.promotion import UNSEEN, Promoter, reject
from daemon.settings.load import Settings
from evaluation.report import Report
from extractors.values import Value
from registry.audit import AuditEntry
from registry.store.store import Store
from registry.versions import Version, VersionState


class Activation(ActReason):
    """The reason to serve another version, and the version that the operator saw being served."""

    instead_of: str | None = Field(
        UNSEEN,
        description="The version that was active when the operator decided (null: the base model); any, if "
        "left out. 409 where another one is active by now.",
    )


class VersionDetails(Value):
    """A version, the report on it, and what was done with it."""

    version: Version
    report: Report | None
    audit: tuple[AuditEntry, ...]


def build_versions_router(store: Store) -> APIRouter:
    """Build the routes that read versions."""
    router = APIRouter(prefix="/versions", tags=["versions"])

    @router.get("")
    def list_versions(target: TargetFilter = None, state: VersionState | None = None) -> list[Version]:
        """Adapter versions, newest first."""
        return [version for version in store.versions(target)[::-1] if state in (None, version.state)]

    @router.get("/{version_id}")
    def show_version(version_id: str) -> VersionDetails:
        """One version: its lineage, files, report, and what was done with it."""
        version = store.version(version_id)
        acts = (entry for entry in store.audit(version.target) if entry.subject == version_id)
        return VersionDetails(version=version, report=store.cycle(version.cycle_id).report, audit=tuple(acts))

    return router


def build_promotion_router(
    settings: Settings, store: Store, authenticator: Authenticator, clock: Callable[[], datetime]
) -> APIRouter:
    """Build the routes that promote, activate and reject versions."""
    router = APIRouter(prefix="/versions", tags=["versions"])

    def serve(version_id: str, body: Activation, by: Person, *, ready_only: bool) -> ServingState:
        live = Promoter(settings, store, clock).activate(
            version_id,
            actor=by.name,
            reason=body.reason,
            instead_of=body.instead_of,
            ready_only=ready_only,
        )
        held = store.target_state(live.target).held
        return ServingState(target=live.target, active_version=live.id, held=held)

    @router.post("/{version_id}/promote")
    def promote_version(
        version_id: str, body: Activation, by: Annotated[Person, Depends(authenticator.authorize)]
    ) -> ServingState:
        """Promote a version that passed every gate; 409 for any other."""
        return serve(version_id, body, by, ready_only=True)

    @router.post("/{version_id}/activate")
    def activate_version(
        version_id: str, body: Activation, by: Annotated[Person, Depends(authenticator.authorize)]
    ) -> ServingState:
        """Serve a version whatever its verdict; the audit log names the operator."""
        return serve(version_id, body, by, ready_only=False)

    @router.post("/{version_id}/reject")
    def reject_version(
        version_id: str, body: ActReason, by: Annotated[Person, Depends(authenticator.authorize)]
    ) -> Version:
        """Reject a version that is READY or on PROBATION, so that it is not promoted; 409 for any other."""
        return reject(store, version_id, actor=by.name, reason=body.reason, now=clock())

    return router
