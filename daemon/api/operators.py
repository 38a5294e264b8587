"""The operators' JSON API, `/api/v1`: everything that the console does. Viewers read, operators decide.

Actions go through the same code as on the command line: `daemon.data.review`, `daemon.serving.promotion`
and the store.
"""

import json
from collections.abc import Callable
from datetime import datetime

import structlog
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from daemon.access.bodies import JSON
from daemon.access.sign_in import Authenticator, build_session_router
from daemon.api.batches import build_batches_router, build_decisions_router, build_items_router
from daemon.api.cycles import build_cycles_router, build_experiments_router
from daemon.api.parameters import Limit, TargetFilter, refuse_broken_text
from daemon.api.refusals import BODY, INSIDE, refuse_with, share_definitions
from daemon.api.targets import build_data_router, build_target_actions_router, build_targets_router
from daemon.api.versions import build_promotion_router, build_versions_router
from daemon.data.review import BatchReview, EditInvalid, ReviewInvalid
from daemon.runtime.locks import Locked
from daemon.runtime.paths import hide_folders
from daemon.settings.load import Settings
from daemon.views.experiments import UnknownExperiment
from daemon.views.status import Health
from extractors.errors import LearndError
from registry.audit import AuditEntry
from registry.batches import ExampleInvalid
from registry.serving.swap import NotServed
from registry.store.batches import UnknownBatch
from registry.store.cycles import UnknownCycle
from registry.store.database import StoreUnavailable
from registry.store.store import Store
from registry.store.versions import UnknownVersion

log = structlog.get_logger()
PREFIX = "/api/v1"
STATUS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], int], ...] = (
    ((UnknownBatch, UnknownCycle, UnknownExperiment, UnknownVersion), 404),
    ((EditInvalid, ReviewInvalid, ExampleInvalid), 422),
    (NotServed, 502),
    ((Locked, StoreUnavailable), 503),
    # Any other obstacle is the current state of things: read it again.
    (LearndError, 409),
)


def build_operators_router(
    settings: Settings,
    store: Store,
    authenticator: Authenticator,
    health: Health,
    clock: Callable[[], datetime],
) -> APIRouter:
    """Build all routes below `/api/v1`."""
    reading, changing = refuse_with(404), refuse_with(*BODY, 404, 409)
    serving = changing | refuse_with(502)
    inside = APIRouter(dependencies=[Depends(authenticator.authorize)])
    inside.include_router(build_targets_router(settings, store, health), responses=reading)
    inside.include_router(
        build_target_actions_router(settings, store, authenticator, clock), responses=serving
    )
    inside.include_router(build_data_router(settings, store, clock), responses=reading)
    inside.include_router(build_cycles_router(settings, store), responses=reading)
    inside.include_router(build_experiments_router(settings, store), responses=reading | refuse_with(409))
    inside.include_router(build_versions_router(store), responses=reading)
    inside.include_router(build_promotion_router(settings, store, authenticator, clock), responses=serving)
    review = BatchReview(settings, store, clock)
    inside.include_router(build_batches_router(review), responses=reading)
    inside.include_router(build_items_router(review), responses=reading)
    inside.include_router(build_decisions_router(review, authenticator), responses=changing)
    inside.include_router(build_audit_router(store))
    router = APIRouter(
        prefix=PREFIX, dependencies=[Depends(refuse_broken_text)], responses=refuse_with(*INSIDE)
    )
    router.include_router(build_session_router(authenticator), responses=refuse_with(*BODY, 429))
    router.include_router(inside)
    return router


def add_error_handlers(api: FastAPI) -> None:
    """Answer the errors that learnd raises on purpose with a status and the error's message.

    Files that cannot be used are answered with 503.
    """
    share_definitions(api)

    def answer(request: Request, problem: Exception) -> JSONResponse:
        code = next(code for kinds, code in STATUS if isinstance(problem, kinds))
        words = hide_folders(str(problem))
        if words != str(problem):
            log.warning("a request was refused", path=request.url.path, problem=str(problem))
        return JSONResponse({"detail": words}, code)

    def answer_invalid(_request: Request, problem: Exception) -> Response:
        if not isinstance(problem, RequestValidationError):
            raise problem
        # What was sent stays out of it: a password may be part of that.
        found = [{key: error[key] for key in ("type", "loc", "msg")} for error in problem.errors()]
        # In ASCII, because a key that was sent need not be text.
        return Response(json.dumps({"detail": found}), 422, media_type=JSON)

    api.add_exception_handler(RequestValidationError, answer_invalid)

    def answer_for_files(request: Request, problem: Exception) -> JSONResponse:
        # Its own words name folders, which are for the log.
        log.error("a request failed", path=request.url.path, problem=str(problem))
        reason = problem.strerror if isinstance(problem, OSError) else None
        return JSONResponse({"detail": f"learnd cannot use its files: {reason or 'see the log'}"}, 503)

    api.add_exception_handler(LearndError, answer)
    api.add_exception_handler(OSError, answer_for_files)


def build_audit_router(store: Store) -> APIRouter:
    """Build the route that reads the audit log."""
    router = APIRouter(prefix="/audit", tags=["audit"])

    @router.get("")
    def list_acts(target: TargetFilter = None, limit: Limit = 100) -> list[AuditEntry]:
        """The audit log, newest first: who did what, when, and why."""
        return store.audit(target, limit)

    return router
