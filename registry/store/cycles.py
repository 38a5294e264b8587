"""Cycles: one unfinished at a time per target, each step a compare-and-set."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, TypedDict, Unpack
from uuid import uuid4

from sqlalchemy import ColumnElement, Connection, Select, insert, select, update

from evaluation.report import Report, Verdict
from extractors.dataset.holdout_split import Window
from extractors.errors import LearndError
from registry.cycles import (
    MOST_PUBLISH_TRIES,
    TRANSITIONS,
    Cycle,
    CycleCounts,
    CycleState,
    IllegalTransition,
    ReportSummary,
    StageResult,
)
from registry.store.audit import write_audit
from registry.store.database import ConstraintViolated, Database, lock_target
from registry.store.notices import write_notice
from registry.store.tables import UNFINISHED, audit, cycles, targets
from registry.store.targets import put_last_cycle_before, write_window
from trainers.planning.plan import Plan


class CycleRunning(LearndError):
    """A cycle was to start while another one of the target is unfinished."""

    def __init__(self, target: str) -> None:
        super().__init__(
            f"{target} has an unfinished cycle; let it end, or advance it, before another starts"
        )


class UnknownCycle(LearndError):
    """No cycle has this id."""

    def __init__(self, cycle_id: str) -> None:
        super().__init__(f"there is no cycle {cycle_id}; `learnd cycles list` names them")


class CycleChanges(TypedDict, total=False):
    """Fields that a step may set beside the state."""

    reason: str
    verdict: Verdict | None
    counts: CycleCounts
    snapshot_id: str
    plan: Plan
    training: tuple[StageResult, ...]
    version_id: str
    report: Report


class CycleFilter(TypedDict, total=False):
    """Conditions on cycles; None stands for any."""

    verdict: Verdict | None
    since: datetime | None
    """Only cycles that began then or later."""
    until: datetime | None
    """Only cycles that began before."""
    beginning: str | None
    """The beginning of their ids."""
    learned: bool
    """Only cycles that trained or judged something."""
    trains: bool
    """True: only cycles that train; False: only those that judge a version again."""
    version_id: str | None
    """Only cycles that trained this version or judge it again."""


TRAINED_OR_JUDGED = cycles.c.plan.is_not(None) | cycles.c.version_id.is_not(None)
"""A training that failed left a plan and no version, a second look a version and no plan."""
WITHOUT_REPORT = [column for column in cycles.c if column is not cycles.c.report]
"""A report takes longer to read than all the rest of many cycles."""
LOOKS_AGAIN = cycles.c.plan.is_(None) & cycles.c.version_id.is_not(None)


class CycleRecords(Database):
    """Every pass of the loop."""

    def start_cycle(
        self, target: str, trigger: str, now: datetime, *, version_id: str | None = None
    ) -> Cycle:
        """Start a cycle in EXTRACTING, to train or to judge the version `version_id` again.

        Changes of feedback count from here on for the next one that trains. Raises CycleRunning while
        another cycle of the target is unfinished.
        """
        cycle = Cycle(
            id=f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{uuid4().hex[:8]}",
            target=target,
            state=CycleState.EXTRACTING,
            started_at=now,
            updated_at=now,
            trigger=trigger,
            version_id=version_id,
        )
        begun = {} if version_id else {"feedback_changes": 0, "last_cycle_at": now}
        try:
            with self._writing() as connection:
                lock_target(connection, target)
                connection.execute(insert(cycles).values(cycle.model_dump()))
                if begun:
                    connection.execute(update(targets).where(targets.c.target == target).values(begun))
        except ConstraintViolated as cause:
            # The index allows one unfinished cycle a target.
            raise CycleRunning(target) from cause
        return cycle

    def request_cycle(self, target: str, *, actor: str, now: datetime) -> None:
        """Make a running daemon start a cycle, whatever its schedule. Raises CycleRunning."""
        with self._writing() as connection:
            lock_target(connection, target)
            unfinished = cycles.c.state.in_(UNFINISHED)
            running = select(cycles.c.id).where(cycles.c.target == target, unfinished)
            if connection.execute(running).first() is not None:
                raise CycleRunning(target)
            began = put_last_cycle_before(connection, target, now)
            if not _is_asked(connection, target, began, now):
                detail = "a cycle now, whatever the schedule says"
                write_audit(
                    connection,
                    now=now,
                    actor=actor,
                    action="ask for a cycle",
                    target=target,
                    subject=target,
                    detail=detail,
                )

    def cycle(self, cycle_id: str) -> Cycle:
        """Return the cycle with its report. Raises UnknownCycle."""
        with self._reading() as connection:
            return load_cycle(connection, cycle_id)

    def cycles(
        self,
        target: str | None = None,
        limit: int = 100,
        state: CycleState | None = None,
        *,
        offset: int = 0,
        **wanted: Unpack[CycleFilter],
    ) -> list[Cycle]:
        """The newest `limit` cycles after the first `offset`, newest first, of those that fit, without
        their reports.
        """
        newest = select(*WITHOUT_REPORT).order_by(cycles.c.started_at.desc(), cycles.c.id.desc())
        newest = newest if state is None else newest.where(cycles.c.state == state)
        newest = newest if target is None else newest.where(cycles.c.target == target)
        return self._cycles(newest.where(*_build_conditions(wanted)).limit(limit).offset(offset))

    def find_looks_at(self, version_id: str) -> list[Cycle]:
        """Return the cycles that judge the version, oldest first: its training, then second looks."""
        of_version = select(cycles).where(cycles.c.version_id == version_id)
        return self._cycles(of_version.order_by(cycles.c.started_at, cycles.c.id))

    def find_unfinished_cycles(self, target: str | None = None) -> list[Cycle]:
        """Return the unfinished cycles, of one target or all, oldest first and without reports.

        A target has at most one. A restart resumes them.
        """
        unfinished = select(*WITHOUT_REPORT).where(cycles.c.state.in_(UNFINISHED))
        unfinished = unfinished if target is None else unfinished.where(cycles.c.target == target)
        return self._cycles(unfinished.order_by(cycles.c.started_at, cycles.c.id))

    def advance_cycle(
        self,
        cycle_id: str,
        old: CycleState,
        new: CycleState,
        now: datetime,
        *,
        window: Window | None = None,
        **changes: Unpack[CycleChanges],
    ) -> Cycle:
        """Take one step from `old` to `new`, with what it found; `window` is the target's new holdout.

        A note on the state that it leaves goes, unless `reason` is given. Raises UnknownCycle, and
        IllegalTransition where the step is not allowed or the cycle is not in `old` any more.
        """
        if new not in TRANSITIONS[old]:
            raise IllegalTransition(f"cycle {cycle_id}", old, new)
        report = changes.get("report")
        outcome = {"outcome": ReportSummary.from_report(report)} if report else {}
        with self._writing() as connection:
            step = (
                update(cycles)
                .where(cycles.c.id == cycle_id, cycles.c.state == old)
                .values({"reason": "", **changes, **outcome, "state": new, "updated_at": now})
            )
            taken = connection.execute(step).rowcount == 1
            cycle = load_cycle(connection, cycle_id)
            if not taken:
                raise IllegalTransition(f"cycle {cycle_id}", cycle.state, new)
            if window is not None:
                write_window(connection, cycle.target, window)
            if new is CycleState.FAILED:
                write_notice(connection, "cycle.failed", cycle.target, now, cycle=cycle_id, state=old)
            return cycle

    def find_unpublished_cycles(self, target: str) -> list[Cycle]:
        """Return the ended cycles that trained or judged something and are still to be published.

        They come oldest first, without their reports.
        """
        ended = select(*WITHOUT_REPORT).where(
            cycles.c.target == target,
            cycles.c.state.in_((CycleState.DONE, CycleState.FAILED)),
            cycles.c.published_at.is_(None),
            cycles.c.publish_tries < MOST_PUBLISH_TRIES,
            TRAINED_OR_JUDGED,
        )
        return self._cycles(ended.order_by(cycles.c.started_at, cycles.c.id))

    def mark_published(self, cycle_id: str, now: datetime, compare_path: str | None) -> None:
        """Record that the results were published, and the path of Phoenix's page that compares the sides."""
        known = {"published_at": now, "compare_path": compare_path}
        with self._writing() as connection:
            connection.execute(update(cycles).where(cycles.c.id == cycle_id).values(known))

    def record_publish_failure(self, cycle_id: str, problem: str) -> None:
        """Record that Phoenix answered, and why it did not accept the cycle's results."""
        tried = {"publish_tries": cycles.c.publish_tries + 1, "publish_problem": problem}
        with self._writing() as connection:
            connection.execute(update(cycles).where(cycles.c.id == cycle_id).values(tried))

    def note(self, cycle_id: str, reason: str) -> None:
        """Record what an unfinished cycle waits for; a cycle that has ended keeps its reason."""
        waiting = update(cycles).where(cycles.c.id == cycle_id, cycles.c.state.in_(UNFINISHED))
        with self._writing() as connection:
            connection.execute(waiting.values(reason=reason))

    def _cycles(self, query: Select[Any]) -> list[Cycle]:
        with self._reading() as connection:
            return [Cycle.model_validate(dict(row)) for row in connection.execute(query).mappings()]


def load_cycle(connection: Connection, cycle_id: str) -> Cycle:
    row = connection.execute(select(cycles).where(cycles.c.id == cycle_id)).mappings().one_or_none()
    if row is None:
        raise UnknownCycle(cycle_id)
    return Cycle.model_validate(dict(row))


def _build_conditions(wanted: CycleFilter) -> Iterator[ColumnElement[bool]]:
    known = cycles.c
    if (verdict := wanted.get("verdict")) is not None:
        yield known.verdict == verdict
    if (since := wanted.get("since")) is not None:
        yield known.started_at >= since
    if (until := wanted.get("until")) is not None:
        yield known.started_at < until
    if beginning := wanted.get("beginning"):
        yield known.id.startswith(beginning, autoescape=True)
    if wanted.get("learned"):
        yield TRAINED_OR_JUDGED
    if (trains := wanted.get("trains")) is not None:
        yield ~LOOKS_AGAIN if trains else LOOKS_AGAIN
    if version_id := wanted.get("version_id"):
        yield known.version_id == version_id


def _is_asked(connection: Connection, target: str, since: datetime | None, until: datetime) -> bool:
    acts = audit.c
    asked = select(acts.id).where(acts.target == target, acts.action == "ask for a cycle", acts.at <= until)
    asked = asked if since is None else asked.where(acts.at > since)
    return connection.execute(asked.limit(1)).first() is not None
