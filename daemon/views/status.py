"""Each target at a glance: its data, its last cycle, its active version and its health."""

import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import field_serializer

from daemon.scheduling.probation import count_required_items, end_of_probation, find_on_probation
from daemon.scheduling.schedule import find_next_run
from daemon.settings.load import Settings
from daemon.settings.target import TargetSettings
from evaluation.report import Verdict
from extractors.synthesis.recipes import SyntheticKind
from extractors.values import Value
from registry.batches import BatchState
from registry.cycles import Cycle, CycleCounts, CycleState
from registry.store.store import Store
from registry.versions import Version
from trainers.job_folder import ProgressLine
from trainers.planning.method_rules import KIND_NAMES, RULES

VOTES = {"liked": "votes", "disliked": "votes"}
"""Kinds that the rules count apart and a cycle counts together."""
WORDS = KIND_NAMES | {"votes": "answers that people liked or did not like"}
"""Kinds of examples, for people."""


class Need(Value):
    """A number that there is, and the number that is needed."""

    has: int
    needs: int


class ProbationStatus(Value):
    """A version that waits for its second look."""

    version: str
    needs: int
    """Newer reviewed items that the second look takes."""
    until: datetime
    """When the version is rejected if it still waits."""


class BatchStatus(Value):
    """A batch of synthetic examples that waits for an operator, with its items by state."""

    id: str
    kind: SyntheticKind
    pending: int
    approved: int
    rejected: int


class TargetStatus(Value):
    """A target's status from the store alone, which is valid with and without a running daemon."""

    target: str
    """`tenant/agent`."""
    active_version: str | None
    """None while agents get the base model."""
    held: bool
    """Nothing is promoted automatically until an operator releases the target."""
    held_reason: str | None
    cycle: str | None
    """Id of the last cycle, which may be running."""
    cycle_state: CycleState | None
    verdict: Verdict | None
    reason: str
    """Why the last cycle ended as it did, or what it waits for."""
    counts: CycleCounts
    """What the last cycle that trains has extracted."""
    needs: dict[str, Need]
    """Training examples by kind. One kind's enough will do."""
    held_out: Need
    """Reviewed items to judge candidates by."""
    probation: ProbationStatus | None
    batches: tuple[BatchStatus, ...]
    new_feedback: int
    """Pieces of feedback since the last cycle began."""
    needs_new_feedback: int
    """Pieces of feedback that start the next cycle."""
    last_poll_at: datetime | None
    last_poll_error: str | None
    next_scheduled: datetime | None


class TargetHealth(Value):
    """The last findings of a running daemon's jobs about a target."""

    problems: dict[str, str] = {}
    """Problem by job; a job that is well has no entry."""
    replicas: dict[str, str] = {}
    """`ok` or a problem, by replica."""
    progress: ProgressLine | None = None
    """The newest line of the running cycle's job."""
    probation_reviewed: int | None = None
    """Newer reviewed items for the second look of the version on probation, when last counted."""

    @field_serializer("progress")
    def _leave_out_defaults(self, line: ProgressLine | None) -> dict[str, Any] | None:
        """Serialise the line as it stands in the job's file."""
        return line.model_dump(mode="json", exclude_defaults=True) if line else None


class RunningTargetStatus(TargetHealth, TargetStatus):
    """A target's status as a running daemon knows it."""


@dataclass
class Health:
    """The last findings of a running daemon's jobs. Threads share it."""

    _targets: dict[str, TargetHealth] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, target: str) -> TargetHealth:
        """Return what is known about `target` (`tenant/agent`)."""
        return self._targets.get(target, TargetHealth())

    def clear_problem(self, target: str, job: str) -> None:
        """Record that `job` is well."""
        with self._lock:
            problems = {name: problem for name, problem in self.read(target).problems.items() if name != job}
            self._update(target, problems=problems)

    def record_problem(self, target: str, job: str, problem: str) -> None:
        with self._lock:
            self._update(target, problems=self.read(target).problems | {job: problem})

    def record_replica(self, target: str, replica: str, state: str) -> None:
        """Record `ok`, or what is wrong with the replica."""
        with self._lock:
            self._update(target, replicas=self.read(target).replicas | {replica: state})

    def record_progress(self, target: str, line: ProgressLine | None) -> None:
        """Record the newest line of the running cycle's job; None once the cycle has ended."""
        with self._lock:
            self._update(target, progress=line)

    def record_probation(self, target: str, reviewed: int | None) -> None:
        """Record how many newer reviewed items there are for a second look."""
        with self._lock:
            self._update(target, probation_reviewed=reviewed)

    def _update(self, target: str, **changes: Any) -> None:
        self._targets[target] = self.read(target).model_copy(update=changes)


def read_status(settings: Settings, store: Store) -> list[TargetStatus]:
    """Return the status of each target in the settings."""
    return [_read_target(target, store) for target in settings.targets]


def read_running_status(settings: Settings, store: Store, health: Health) -> list[RunningTargetStatus]:
    """Return the status of each target in the settings, with what the daemon's jobs found."""
    return [
        RunningTargetStatus(**dict(status), **dict(health.read(status.target)))
        for status in read_status(settings, store)
    ]


def _read_target(target: TargetSettings, store: Store) -> TargetStatus:
    state, active = store.target_state(target.key), store.find_active_version(target.key)
    last = next(iter(store.cycles(target.key, limit=1)), None)
    trained = next(iter(store.cycles(target.key, limit=1, trains=True)), None)
    counts = trained.counts if trained else CycleCounts()
    waiting = find_on_probation(store, target.key)
    return TargetStatus(
        target=target.key,
        active_version=active.id if active else None,
        held=state.held,
        held_reason=state.held_reason,
        cycle=last.id if last else None,
        cycle_state=last.state if last else None,
        verdict=last.verdict if last else None,
        reason=last.reason if last else "",
        counts=counts,
        needs=count_needs(target, trained),
        held_out=Need(has=counts.holdout or 0, needs=target.holdout.least),
        probation=_describe_probation(target, store, waiting) if waiting else None,
        batches=tuple(
            BatchStatus(**batch.model_dump(include=set(BatchStatus.model_fields)))
            for batch in store.batches(target.key, BatchState.WAITING)
        ),
        new_feedback=state.feedback_changes,
        needs_new_feedback=target.thresholds.min_new_examples,
        last_poll_at=state.last_poll_at,
        last_poll_error=state.last_poll_error,
        next_scheduled=find_next_run(target, last.started_at) if last and target.schedule.cron else None,
    )


def _describe_probation(target: TargetSettings, store: Store, version: Version) -> ProbationStatus:
    return ProbationStatus(
        version=version.id,
        needs=count_required_items(target, store, version),
        until=end_of_probation(target, version),
    )


def describe_wait(probation: ProbationStatus | None, reviewed: int | None = None) -> str:
    """Say what the version on probation waits for; empty where there is none.

    `reviewed` is how many newer reviewed items there are, where a daemon has counted them.
    """
    if probation is None:
        return ""
    so_far = "" if reviewed is None else f" (there are {reviewed})"
    return (
        f"{probation.needs} reviewed calls newer than its training{so_far}, to be judged again, "
        f"until {probation.until:%Y-%m-%d}"
    )


def count_needs(target: TargetSettings, last: Cycle | None) -> dict[str, Need]:
    """Count the examples of each kind from which a cycle can be trained, and those there are.

    There are as many as the `last` cycle found. Enough of one kind will do: the rules that may be the
    default need one kind each (`learnd plan` shows them all).
    """
    found = (last.counts.train or {}) if last else {}
    least: dict[str, int] = {}
    for rule in RULES:
        if target.task in rule.tasks and rule.leads:
            asked = Counter[str]()
            for counted, threshold in rule.needs.items():
                asked[VOTES.get(counted, counted)] += getattr(target.thresholds, threshold)
            least |= {kind: max(count, least.get(kind, 0)) for kind, count in asked.items()}
    return {kind: Need(has=found.get(kind, 0), needs=count) for kind, count in least.items()}
