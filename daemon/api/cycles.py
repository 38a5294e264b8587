"""Routes for cycles and their experiments."""

from typing import Annotated

from fastapi import APIRouter, Query

from daemon.api.parameters import Limit, Moment, Offset, TargetFilter
from daemon.settings.load import Settings
from daemon.views.cycle_list import CycleView, build_view, list_newest
from daemon.views.experiments import (
    Experiment,
    ExperimentComparison,
    ExperimentDetails,
    build_details,
    compare_experiments,
    find_run,
    list_experiments,
)
from daemon.views.run_files import SideBySide, read_answers, read_progress
from evaluation.report import Verdict
from registry.cycles import Cycle, CycleState
from registry.store.store import Store
from trainers.job_folder import ProgressLine
from trainers.planning.hyperparameters import Method


def build_cycles_router(settings: Settings, store: Store) -> APIRouter:
    """Build the routes that read cycles."""
    router = APIRouter(prefix="/cycles", tags=["cycles"])

    @router.get("")
    def list_cycles(
        target: TargetFilter = None,
        state: CycleState | None = None,
        verdict: Verdict | None = None,
        method: Method | None = None,
        limit: Limit = 100,
    ) -> list[CycleView]:
        """The history of cycles, newest first."""
        found = list_newest(store, target=target, state=state, verdict=verdict, method=method, limit=limit)
        return [build_view(cycle) for cycle in found]

    @router.get("/{cycle_id}")
    def show_cycle(cycle_id: str) -> Cycle:
        """One cycle: its data, plan, trainings, measures and verdict."""
        return store.cycle(cycle_id)

    @router.get("/{cycle_id}/progress", response_model_exclude_defaults=True)
    def show_progress(cycle_id: str) -> dict[str, list[ProgressLine]]:
        """The progress lines of a cycle's jobs, with their losses, by job."""
        return read_progress(settings, store.cycle(cycle_id))

    @router.get("/{cycle_id}/answers")
    def show_answers(
        cycle_id: str, changed: bool = False, offset: Offset = 0, limit: Limit = 50
    ) -> tuple[SideBySide, ...]:
        """Held-out items with every side's answers.

        With `changed`, only the items that the candidate gains or loses against what is live.
        """
        return read_answers(settings, store.cycle(cycle_id), changed=changed, offset=offset, limit=limit)

    return router


def build_experiments_router(settings: Settings, store: Store) -> APIRouter:
    """Build the routes that list and compare runs."""
    router = APIRouter(prefix="/experiments", tags=["experiments"])

    @router.get("")
    def list_runs(
        target: TargetFilter = None,
        method: Method | None = None,
        verdict: Verdict | None = None,
        since: Annotated[Moment | None, Query(description="Only runs that began then or later.")] = None,
        until: Annotated[Moment | None, Query(description="Only runs that began before.")] = None,
        limit: Limit = 100,
    ) -> list[Experiment]:
        """Cycles that trained, or looked at a version again, newest first."""
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
    def compare_runs(run: Annotated[list[str], Query()]) -> ExperimentComparison:
        """Compare runs, each named by its id, the beginning of its id, or the version that it trained."""
        return compare_experiments(store, settings.phoenix, [find_run(store, each) for each in run])

    @router.get("/{run:path}")
    def show_run(run: str) -> ExperimentDetails:
        """One run, named as for the comparison: data, plan, trainings, report, and its page in Phoenix."""
        return build_details(store, settings.phoenix, find_run(store, run))

    return router
