"""The operators' JSON API, `/api/v1`: everything that the console does. Viewers read, operators decide.

What is done here is done as on the command line: by `daemon.approvals`, `daemon.promotion` and the store.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, Field

from daemon.access.accounts import Person
from daemon.access.sign_in import Door, session_router
from daemon.data.review import Desk, EditInvalid, Page, ReadItem, ReviewInvalid, Ruling
from daemon.runtime.context import Loop
from daemon.runtime.locks import Locked
from daemon.serving.promotion import UNSEEN, activate, reject, rollback
from daemon.settings.load import Settings, SettingsError, TargetSettings
from daemon.views.cycle_list import CycleView, newest, view
from daemon.views.data_summary import Shown, SpanLink, TargetData
from daemon.views.experiments import (
    Compared,
    Experiment,
    ExperimentDetails,
    UnknownExperiment,
    compare,
    details,
    find,
    list_experiments,
)
from daemon.views.run_files import SideBySide, answers_of, progress_of
from daemon.views.status import Health, status
from evaluation.report import Report, Verdict
from extractors.examples.types import Origin
from extractors.values import LearndError, Value
from registry.audit import AuditEntry
from registry.batches import Batch, BatchState, ExampleInvalid, ItemState
from registry.cycles import Cycle, CycleState
from registry.serving.swap import NotServed
from registry.store.batches import UnknownBatch
from registry.store.cycles import UnknownCycle
from registry.store.database import StoreUnavailable
from registry.store.store import Store
from registry.store.versions import UnknownVersion
from registry.versions import Version, VersionState
from trainers.planning.hyperparameters import Method
from trainers.planning.plan import Kind

PREFIX = "/api/v1"
STATUS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], int], ...] = (
    ((UnknownBatch, UnknownCycle, UnknownExperiment, UnknownVersion), 404),
    ((EditInvalid, ReviewInvalid, ExampleInvalid), 422),
    (NotServed, 502),
    ((Locked, StoreUnavailable), 503),
    # Whatever else stands in the way of an act is how things are now: look again.
    (LearndError, 409),
)
Limit = Annotated[int, Query(ge=1, le=1000)]
Offset = Annotated[int, Query(ge=0)]
OfTarget = Annotated[str | None, Query(description="`tenant/agent`; all, if left out.")]


class Why(Value):
    """The reason of an act, for the audit log."""

    reason: str = Field(min_length=1, max_length=2000)


class Activation(Why):
    """Changing what is served, and what they saw being served."""

    instead_of: str | None = UNSEEN
    """The version that was active when they decided (null: the base model); left out, any."""


class Asked(Value):
    """A cycle that will begin."""

    target: str


class Closing(Value):
    """The end of a batch before every item is decided."""

    reason: str = Field("", max_length=2000)


class Review(Value):
    """A reviewed export."""

    jsonl: str


class Served(Value):
    """What answers for a target now."""

    target: str
    active_version: str | None
    """None: the base model."""
    held: bool


class BatchDecided(Value):
    """What was decided, and how the batch stands now."""

    batch: Batch
    decided: tuple[ReadItem, ...]


class VersionView(Value):
    """A version, how it was judged, and what was done with it."""

    version: Version
    report: Report | None
    audit: tuple[AuditEntry, ...]


def operators_api(
    settings: Settings,
    store: Store,
    door: Door,
    health: Health,
    clock: Callable[[], datetime],
) -> APIRouter:
    """All routes below `/api/v1`."""
    router = APIRouter(prefix=PREFIX)
    router.include_router(session_router(door))
    inside = APIRouter(dependencies=[Depends(door.allowed)])
    inside.include_router(_targets(settings, store, health, door, clock))
    inside.include_router(_data(settings, store, clock))
    inside.include_router(_cycles(settings, store))
    inside.include_router(_experiments(settings, store))
    inside.include_router(_versions(settings, store, door, clock))
    desk = Desk(settings, store, clock)
    inside.include_router(_batches(desk))
    inside.include_router(_decisions(desk, door))
    inside.include_router(_audit(store))
    router.include_router(inside)
    return router


def answer_problems(api: FastAPI) -> None:
    """Turn what learnd raises on purpose into an answer that says what happened and what to do."""

    def answer(_request: Request, problem: Exception) -> JSONResponse:
        code = next(code for kinds, code in STATUS if isinstance(problem, kinds))
        return JSONResponse({"detail": str(problem)}, code)

    api.add_exception_handler(LearndError, answer)
    api.add_exception_handler(StoreUnavailable, answer)


def _targets(
    settings: Settings, store: Store, health: Health, door: Door, clock: Callable[[], datetime]
) -> APIRouter:
    router = APIRouter(prefix="/targets", tags=["targets"])

    Target = Annotated[TargetSettings, Depends(_target_of(settings))]  # noqa: N806 - a type

    @router.get("")
    def list_targets() -> list[dict[str, Any]]:
        """Each target's data against its thresholds, cycle, active version, waiting batches and health."""
        return [entry | health.of(entry["target"]) for entry in status(settings, store)]

    @router.get("/{tenant}/{agent}")
    def show_target(target: Target) -> dict[str, Any]:
        """One target, as in the list."""
        entries = (entry for entry in status(settings, store) if entry["target"] == target.key)
        return next(entries) | health.of(target.key)

    @router.post("/{tenant}/{agent}/start", status_code=202)
    def start(target: Target, by: Annotated[Person, Depends(door.allowed)]) -> Asked:
        """Begin a cycle within seconds, whatever the schedule says; 409 while one is running."""
        store.ask_for_cycle(target.key, actor=by.name, now=clock())
        return Asked(target=target.key)

    @router.post("/{tenant}/{agent}/rollback")
    def roll_back(target: Target, asked: Activation, by: Annotated[Person, Depends(door.allowed)]) -> Served:
        """Go back to what was live before; nothing is promoted automatically until the release."""
        live = rollback(
            settings,
            store,
            target,
            actor=by.name,
            reason=asked.reason,
            clock=clock,
            instead_of=asked.instead_of,
        )
        return Served(target=target.key, active_version=live.id if live else None, held=True)

    @router.post("/{tenant}/{agent}/hold")
    def hold(target: Target, asked: Why, by: Annotated[Person, Depends(door.allowed)]) -> Served:
        """Promote nothing automatically until the release; what is live stays live."""
        store.hold(target.key, by.name, asked.reason, clock())
        active = store.active(target.key)
        return Served(target=target.key, active_version=active.id if active else None, held=True)

    @router.post("/{tenant}/{agent}/release")
    def release(target: Target, by: Annotated[Person, Depends(door.allowed)]) -> Served:
        """Let a target that is on hold promote automatically again."""
        store.release(target.key, actor=by.name, now=clock())
        active = store.active(target.key)
        return Served(target=target.key, active_version=active.id if active else None, held=False)

    return router


def _data(settings: Settings, store: Store, clock: Callable[[], datetime]) -> APIRouter:
    router = APIRouter(prefix="/targets", tags=["data"])
    Target = Annotated[TargetSettings, Depends(_target_of(settings))]  # noqa: N806 - a type

    def read(target: TargetSettings) -> TargetData:
        return TargetData.read(Loop(settings, target, store, clock))

    @router.get("/{tenant}/{agent}/data")
    def show_data(target: Target) -> dict[str, Any]:
        """Examples by kind and origin against the thresholds, and what was dropped why. Takes seconds."""
        return read(target).summary()

    @router.get("/{tenant}/{agent}/examples")
    def list_examples(
        target: Target, kind: Kind, origin: Origin | None = None, offset: Offset = 0, limit: Limit = 50
    ) -> tuple[Shown, ...]:
        """What a cycle that began now would train and validate on, newest first. Takes seconds."""
        return read(target).examples(kind, origin, offset=offset, limit=limit)

    @router.get("/{tenant}/{agent}/dropped")
    def list_dropped(target: Target, reason: str) -> tuple[SpanLink, ...]:
        """The newest spans that were dropped for `reason`, as `/data` words it. Takes seconds."""
        return read(target).dropped_spans(reason)

    return router


def _target_of(settings: Settings) -> Callable[[str, str], TargetSettings]:
    """A dependency: the target that a path names; 404 for an unknown one."""

    def the_target(tenant: str, agent: str) -> TargetSettings:
        try:
            return settings.target(f"{tenant}/{agent}")
        except SettingsError as unknown:
            raise HTTPException(404, str(unknown)) from None

    return the_target


def _cycles(settings: Settings, store: Store) -> APIRouter:
    router = APIRouter(prefix="/cycles", tags=["cycles"])

    @router.get("")
    def list_cycles(
        target: OfTarget = None,
        state: CycleState | None = None,
        verdict: Verdict | None = None,
        method: Method | None = None,
        limit: Limit = 100,
    ) -> list[CycleView]:
        """The history, newest first."""
        found = newest(store, target=target, state=state, verdict=verdict, method=method, limit=limit)
        return [view(cycle) for cycle in found]

    @router.get("/{cycle_id}")
    def show_cycle(cycle_id: str) -> Cycle:
        """One cycle: data, plan, trainings, measures, verdict."""
        return store.cycle(cycle_id)

    @router.get("/{cycle_id}/progress")
    def show_progress(cycle_id: str) -> dict[str, list[dict[str, Any]]]:
        """What the cycle's jobs said as they went on, losses among it, by the job's name."""
        return progress_of(settings, store.cycle(cycle_id))

    @router.get("/{cycle_id}/answers")
    def show_answers(
        cycle_id: str, changed: bool = False, offset: Offset = 0, limit: Limit = 50
    ) -> tuple[SideBySide, ...]:
        """Held-out items and what every side said to them; `changed` are those that the candidate gains or
        loses against what is live."""
        return answers_of(settings, store.cycle(cycle_id), changed=changed, offset=offset, limit=limit)

    return router


def _experiments(settings: Settings, store: Store) -> APIRouter:
    router = APIRouter(prefix="/experiments", tags=["experiments"])

    @router.get("")
    def list_runs(
        target: OfTarget = None,
        method: Method | None = None,
        verdict: Verdict | None = None,
        since: AwareDatetime | None = None,
        until: AwareDatetime | None = None,
        limit: Limit = 100,
    ) -> list[Experiment]:
        """What trained, or looked at a version again, newest first."""
        return list_experiments(
            store,
            settings.phoenix,
            target=target,
            method=method,
            verdict=verdict,
            since=since,
            until=until,
            limit=limit,
        )

    @router.get("/compare")
    def compare_runs(run: Annotated[list[str], Query()]) -> Compared:
        """Runs side by side, each named by its id, a beginning of it, or the version that it trained."""
        return compare(store, settings.phoenix, [find(store, each) for each in run])

    @router.get("/{run:path}")
    def show_run(run: str) -> ExperimentDetails:
        """One run, named so: data, plan, trainings, report, and where Phoenix shows it."""
        return details(store, settings.phoenix, find(store, run))

    return router


def _versions(settings: Settings, store: Store, door: Door, clock: Callable[[], datetime]) -> APIRouter:
    router = APIRouter(prefix="/versions", tags=["versions"])

    @router.get("")
    def list_versions(target: OfTarget = None, state: VersionState | None = None) -> list[Version]:
        """The versions, newest first."""
        return [version for version in store.versions(target)[::-1] if state in (None, version.state)]

    @router.get("/{version_id}")
    def show_version(version_id: str) -> VersionView:
        """One version: lineage, files, report, and what was done with it."""
        version = store.version(version_id)
        acts = (entry for entry in store.audit(version.target) if entry.subject == version_id)
        return VersionView(version=version, report=store.cycle(version.cycle_id).report, audit=tuple(acts))

    def served(version_id: str, asked: Activation, by: Person, *, ready_only: bool) -> Served:
        live = activate(
            settings,
            store,
            version_id,
            actor=by.name,
            reason=asked.reason,
            clock=clock,
            instead_of=asked.instead_of,
            ready_only=ready_only,
        )
        held = store.target_state(live.target).held
        return Served(target=live.target, active_version=live.id, held=held)

    @router.post("/{version_id}/promote")
    def promote_version(
        version_id: str, asked: Activation, by: Annotated[Person, Depends(door.allowed)]
    ) -> Served:
        """Serve a version that passed every gate; 409 for any other."""
        return served(version_id, asked, by, ready_only=True)

    @router.post("/{version_id}/activate")
    def activate_version(
        version_id: str, asked: Activation, by: Annotated[Person, Depends(door.allowed)]
    ) -> Served:
        """Serve a version whatever its verdict; the audit log says who did."""
        return served(version_id, asked, by, ready_only=False)

    @router.post("/{version_id}/reject")
    def reject_version(version_id: str, asked: Why, by: Annotated[Person, Depends(door.allowed)]) -> Version:
        """Have a version that is READY or on PROBATION not go live by itself; 409 for any other."""
        return reject(store, version_id, actor=by.name, reason=asked.reason, now=clock())

    return router


def _batches(desk: Desk) -> APIRouter:
    router = APIRouter(prefix="/batches", tags=["approvals"])

    @router.get("")
    def list_batches(
        target: OfTarget = None, state: BatchState | None = None, limit: Limit = 100
    ) -> list[Batch]:
        """Batches of synthetic examples, newest first."""
        return desk.store.batches(target, state, limit)

    @router.get("/{batch_id}")
    def show_batch(batch_id: str) -> Batch:
        """One batch: what it was made for and from, and how far it is decided."""
        return desk.store.batch(batch_id)

    @router.get("/{batch_id}/items")
    def list_items(
        batch_id: str,
        state: ItemState | None = None,
        after: int = 0,
        before: int | None = None,
        containing: str = "",
        limit: Limit = 50,
    ) -> Page:
        """Items from the one behind `after` on, and the approved examples that they were made from.

        With `before`, the items in front of that one, the nearest first.
        """
        return desk.page(batch_id, state, after=after, before=before, containing=containing, limit=limit)

    @router.get("/{batch_id}/items/{number}")
    def show_item(batch_id: str, number: int) -> Page:
        """One item, and the approved examples that it was made from."""
        desk.item(batch_id, number)
        return desk.page(batch_id, after=number - 1, limit=1)

    @router.get("/{batch_id}/export", response_class=Response)
    def export(batch_id: str) -> Response:
        """The items as JSONL, for review in another tool."""
        named = {
            "Content-Disposition": f'attachment; filename="{batch_id}.jsonl"',
            "Cache-Control": "no-store",
        }
        return Response(
            "".join(desk.export_lines(batch_id)), headers=named, media_type="application/x-ndjson"
        )

    return router


def _decisions(desk: Desk, door: Door) -> APIRouter:
    router = APIRouter(prefix="/batches", tags=["approvals"])
    By = Annotated[Person, Depends(door.allowed)]  # noqa: N806 - a type

    def now(batch_id: str, decided: tuple[ReadItem, ...]) -> BatchDecided:
        return BatchDecided(batch=desk.store.batch(batch_id), decided=decided)

    @router.post("/{batch_id}/decisions")
    def decide(batch_id: str, rulings: list[Ruling], by: By) -> BatchDecided:
        """Approve, reject, edit or take back, all of it or nothing; 409 where somebody was quicker."""
        return now(batch_id, desk.decide(batch_id, rulings, actor=by.name))

    @router.post("/{batch_id}/close")
    def close(batch_id: str, asked: Closing, by: By) -> Batch:
        """Train on what was approved so far, and on nothing else of the batch."""
        return desk.close(batch_id, actor=by.name, reason=asked.reason)

    @router.post("/{batch_id}/withdraw")
    def withdraw(batch_id: str, asked: Why, by: By) -> Batch:
        """Train on nothing of the batch, whatever was approved."""
        return desk.withdraw(batch_id, actor=by.name, reason=asked.reason)

    @router.post("/{batch_id}/import")
    def import_review(batch_id: str, asked: Review, by: By) -> BatchDecided:
        """Decide what a reviewed export says; 422 with line and reason where it is stale or malformed."""
        return now(batch_id, desk.import_lines(batch_id, asked.jsonl.split("\n"), actor=by.name))

    return router


def _audit(store: Store) -> APIRouter:
    router = APIRouter(prefix="/audit", tags=["audit"])

    @router.get("")
    def list_acts(target: OfTarget = None, limit: Limit = 100) -> list[AuditEntry]:
        """Who did what, newest first."""
        return store.audit(target, limit)

    return router
