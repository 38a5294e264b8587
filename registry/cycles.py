"""A cycle: one pass of the loop for a target, and the steps it may legally take."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from evaluation.report import Report, Verdict
from extractors.values import LearndError, Value
from trainers.plan import Plan


class CycleState(StrEnum):
    EXTRACTING = "EXTRACTING"
    SELECTING = "SELECTING"
    TRAINING = "TRAINING"
    EVALUATING = "EVALUATING"
    PROMOTING = "PROMOTING"
    DONE = "DONE"
    SKIPPED = "SKIPPED"
    FAILED = "FAILED"


S = CycleState
TRANSITIONS: dict[CycleState, frozenset[CycleState]] = {
    # A second look trains nothing.
    S.EXTRACTING: frozenset({S.SELECTING, S.EVALUATING, S.SKIPPED, S.FAILED}),
    S.SELECTING: frozenset({S.TRAINING, S.SKIPPED, S.FAILED}),
    S.TRAINING: frozenset({S.EVALUATING, S.FAILED}),
    S.EVALUATING: frozenset({S.PROMOTING, S.DONE, S.FAILED}),
    S.PROMOTING: frozenset({S.DONE, S.FAILED}),
    S.DONE: frozenset(),
    S.SKIPPED: frozenset(),
    S.FAILED: frozenset(),
}
ENDED = frozenset(state for state, following in TRANSITIONS.items() if not following)


class IllegalTransition(LearndError):
    """A cycle or version was asked to take a step that its state does not allow."""

    def __init__(self, what: str, old: str, new: str) -> None:
        super().__init__(f"{what} is {old} and cannot become {new}; reload it and look again")


class Trained(Value):
    """What became of one stage of the plan."""

    method: str
    run: int = 0
    """Which of several runs of the plan, each with a seed of its own."""
    left_out: str = ""
    """Why it was not worth training, in words; empty where it was trained."""
    figures: dict[str, Any] = {}
    """The training's metrics (`trainers.job.TrainingMetrics`)."""


class Cycle(Value):
    """One pass of the loop, as the store holds it."""

    id: str
    target: str
    """`tenant/agent`."""
    state: CycleState
    started_at: datetime
    updated_at: datetime
    trigger: str
    """Why it began: `new examples`, `schedule`, `operator`, `batch decided`, `second look`."""
    reason: str = ""
    """Why it ended as it did, or what it waits for, in words."""
    verdict: Verdict | None = None
    counts: dict[str, Any] = {}
    """What extraction found: reviewed, approved, corrected, rejected, dropped by reason."""
    snapshot_id: str | None = None
    plan: Plan | None = None
    training: tuple[Trained, ...] = ()
    """How each stage of the plan went."""
    version_id: str | None = None
    """The candidate that it trained, or looks at again."""
    report: Report | None = None
    published_at: datetime | None = None
    """Since when Phoenix has what it measured."""
    compare_path: str | None = None
    """Phoenix's page that compares the sides."""

    @property
    def ended(self) -> bool:
        return self.state in ENDED
