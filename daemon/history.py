"""The history of cycles: what a list of them shows, and finding some among them."""

from datetime import datetime
from typing import Any

from evaluation.report import Verdict
from extractors.values import Value
from registry.cycles import Cycle, CycleState
from registry.store.store import Store
from trainers.hyperparameters import Method

SEARCHED = 1000
"""Cycles among which a filter looks."""


class CycleView(Value):
    """A cycle in the history."""

    id: str
    target: str
    state: CycleState
    verdict: Verdict | None
    method: str | None
    """The methods of its plan, in words."""
    reason: str
    trigger: str
    started_at: datetime
    updated_at: datetime
    version_id: str | None
    counts: dict[str, Any]


def filtered(
    store: Store,
    *,
    target: str | None = None,
    state: CycleState | None = None,
    verdict: Verdict | None = None,
    method: Method | None = None,
    limit: int = 100,
) -> list[Cycle]:
    """The newest `limit` cycles that fit, newest first."""
    some = verdict is not None or method is not None
    found = [
        cycle
        for cycle in store.cycles(target, SEARCHED if some else limit, state)
        if verdict in (None, cycle.verdict) and (method is None or method in methods(cycle))
    ]
    return found[:limit]


def methods(cycle: Cycle) -> list[str]:
    """The methods of its plan's stages."""
    return [stage.method for stage in cycle.plan.stages] if cycle.plan else []


def view(cycle: Cycle) -> CycleView:
    """What a list shows of the cycle."""
    shown = cycle.model_dump(include=CycleView.model_fields.keys() - {"method"})
    return CycleView(**shown, method=", then ".join(methods(cycle)) or None)
