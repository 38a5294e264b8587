"""What an operator sees at a glance: each target's data, cycle, active version and health."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from daemon.scheduling.probation import gives_up_at, needed, on_probation
from daemon.scheduling.schedule import next_run
from daemon.settings.load import Settings
from daemon.settings.target import TargetSettings
from registry.batches import BatchState
from registry.cycles import Cycle
from registry.store.store import Store
from registry.versions import Version
from trainers.planning.method_rules import NAMES, RULES

VOTES = {"liked": "votes", "disliked": "votes"}
"""What the rules count apart and a cycle together."""
WORDS = NAMES | {"votes": "answers that people liked or did not like"}
"""Kinds of examples, for people."""


@dataclass
class Health:
    """What the jobs of a running daemon last found. Threads share it."""

    _problems: dict[str, dict[str, str]] = field(default_factory=dict)
    _replicas: dict[str, dict[str, str]] = field(default_factory=dict)
    _progress: dict[str, dict[str, Any]] = field(default_factory=dict)
    _reviewed: dict[str, int | None] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def well(self, target: str, job: str) -> None:
        with self._lock:
            self._problems.setdefault(target, {}).pop(job, None)

    def ill(self, target: str, job: str, problem: str) -> None:
        with self._lock:
            self._problems.setdefault(target, {})[job] = problem

    def replica(self, target: str, replica: str, problem: str) -> None:
        with self._lock:
            self._replicas.setdefault(target, {})[replica] = problem

    def progress(self, target: str, line: dict[str, Any] | None) -> None:
        with self._lock:
            if line is None:
                self._progress.pop(target, None)
            else:
                self._progress[target] = line

    def probation(self, target: str, reviewed: int | None) -> None:
        """How many newer reviewed items there are for a second look, when last counted."""
        with self._lock:
            self._reviewed[target] = reviewed

    def of(self, target: str) -> dict[str, Any]:
        """`problems` by job, `replicas` by name, the `progress` of the running cycle, and
        `probation_reviewed`: newer reviewed items for a second look.
        """
        with self._lock:
            return {
                "problems": dict(self._problems.get(target, {})),
                "replicas": dict(self._replicas.get(target, {})),
                "progress": self._progress.get(target),
                "probation_reviewed": self._reviewed.get(target),
            }


def status(settings: Settings, store: Store) -> list[dict[str, Any]]:
    """One JSON-ready entry a target, from the store alone: it is true with and without a daemon."""
    return [_target_status(target, store) for target in settings.targets]


def _target_status(target: TargetSettings, store: Store) -> dict[str, Any]:
    state, active = store.target_state(target.key), store.active(target.key)
    last = next(iter(store.cycles(target.key, limit=1)), None)
    trained = next(iter(store.cycles(target.key, limit=1, trains=True)), None)
    waiting = on_probation(store, target.key)
    fires = next_run(target, last.started_at) if last and target.schedule.cron else None
    return {
        "target": target.key,
        "active_version": active.id if active else None,
        "held": state.held,
        "held_reason": state.held_reason,
        "cycle": last.id if last else None,
        "cycle_state": last.state if last else None,
        "verdict": last.verdict if last else None,
        "reason": last.reason if last else "",
        "counts": trained.counts if trained else {},
        "needs": needs(target, trained),
        "held_out": {
            "has": (trained.counts if trained else {}).get("holdout", 0),
            "needs": target.holdout.least,
        },
        "probation": _probation(target, store, waiting) if waiting else None,
        "batches": [
            batch.model_dump(include={"id", "kind", "pending", "approved", "rejected"})
            for batch in store.batches(target.key, BatchState.WAITING)
        ],
        "new_feedback": state.feedback_changes,
        "needs_new_feedback": target.thresholds.min_new_examples,
        "last_poll_at": state.last_poll_at,
        "last_poll_error": state.last_poll_error,
        "next_scheduled": fires,
    }


def _probation(target: TargetSettings, store: Store, version: Version) -> dict[str, Any]:
    return {
        "version": version.id,
        "needs": needed(target, store, version),
        "until": gives_up_at(target, version),
    }


def waits_for(entry: Mapping[str, Any]) -> str:
    """What the version on probation of a status' `entry` waits for, in words; empty where there is none."""
    waiting = entry["probation"]
    if waiting is None:
        return ""
    reviewed = entry.get("probation_reviewed")
    so_far = "" if reviewed is None else f" (there are {reviewed})"
    return (
        f"{waiting['needs']} reviewed calls newer than its training{so_far}, to be judged again, "
        f"until {waiting['until']:%Y-%m-%d}"
    )


def needs(target: TargetSettings, last: Cycle | None) -> dict[str, dict[str, int]]:
    """What any method for the target's task needs, by kind: examples that it `needs`, and those it `has`.

    It has what the last cycle found. One kind's enough will do; the rules (`learnd plan`) say for what.
    """
    found = (last.counts if last else {}).get("train", {})
    least: dict[str, int] = {}
    for rule in RULES:
        if target.task in rule.tasks:
            asked = Counter[str]()
            for counted, threshold in rule.needs.items():
                asked[VOTES.get(counted, counted)] += getattr(target.thresholds, threshold)
            least |= {kind: max(count, least.get(kind, 0)) for kind, count in asked.items()}
    return {kind: {"has": found.get(kind, 0), "needs": count} for kind, count in least.items()}
