"""The history of cycles: finding cycles, and their rows in a list."""

from collections.abc import Iterator
from datetime import datetime
from itertools import count, islice
from typing import Unpack

from evaluation.report import Verdict
from extractors.values import Value
from registry.cycles import Cycle, CycleCounts, CycleState
from registry.store.cycles import CycleFilter
from registry.store.store import Store
from trainers.planning.hyperparameters import Method

PAGE = 200
"""How many cycles are read at once."""


class CycleView(Value):
    """A cycle in the history."""

    id: str
    target: str
    state: CycleState
    verdict: Verdict | None
    method: str | None
    """The methods that it trains with, in words."""
    reason: str
    trigger: str
    started_at: datetime
    updated_at: datetime
    version_id: str | None
    counts: CycleCounts


def list_newest(
    store: Store,
    *,
    target: str | None = None,
    state: CycleState | None = None,
    method: Method | None = None,
    limit: int = 100,
    **wanted: Unpack[CycleFilter],
) -> list[Cycle]:
    """Return the newest `limit` cycles that match, newest first, without their reports.

    A second look has the method that its version was trained with.
    """
    if method is None:
        return store.cycles(target, limit, state, **wanted)
    found = _read_pages(store, target, state, wanted)
    return list(
        islice((cycle for cycle in found if method in list_methods(find_training_cycle(store, cycle))), limit)
    )


def _read_pages(
    store: Store, target: str | None, state: CycleState | None, wanted: CycleFilter
) -> Iterator[Cycle]:
    for offset in count(step=PAGE):
        found = store.cycles(target, PAGE, state, offset=offset, **wanted)
        yield from found
        if len(found) < PAGE:
            return


def find_training_cycle(store: Store, cycle: Cycle) -> Cycle:
    """Return the cycle that trained the candidate; for a second look that is another one."""
    if cycle.plan is not None or cycle.version_id is None:
        return cycle
    return store.cycles(limit=1, trains=True, version_id=cycle.version_id)[0]


def list_methods(cycle: Cycle) -> list[str]:
    """Return the methods of the plan's stages, except those that all its trainings left out."""
    took = {stage.method for stage in cycle.training if not stage.left_out}
    left_out = {stage.method for stage in cycle.training} - took
    planned = [stage.method for stage in cycle.plan.stages] if cycle.plan else []
    return [method for method in planned if method not in left_out]


def build_view(cycle: Cycle) -> CycleView:
    """Return the cycle's row in a list."""
    shown = cycle.model_dump(include=CycleView.model_fields.keys() - {"method"})
    return CycleView(**shown, method=", then ".join(list_methods(cycle)) or None)
