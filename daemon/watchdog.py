"""Notices jobs that did not run, in a thread of its own: the loop that runs them may be what stands still."""

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from daemon.scheduling.job_loop import JobLoop
from daemon.views.status import Health
from registry.store.database import StoreUnavailable
from registry.store.store import Store

log = structlog.get_logger()
LOOK_SECONDS = 10.0
JOB = "watchdog"
"""The name under which late jobs stand among a target's problems."""


@dataclass
class Watchdog:
    """Shows late jobs in the status, and writes a notice when a target's first job is late."""

    loop: JobLoop
    store: Store
    health: Health
    targets: Collection[str]
    clock: Callable[[], datetime]
    """Aware UTC."""
    stop: threading.Event
    _told: set[str] = field(default_factory=set)
    """The targets for which a notice was written."""

    def start(self) -> None:
        """Look every few seconds until `stop` is set."""
        threading.Thread(target=self._look_forever, name=JOB, daemon=True).start()

    def look(self) -> None:
        """Record which jobs of which targets are late now."""
        delays = self._find_delays()
        for target in self.targets:
            if jobs := delays.get(target):
                self._record(target, jobs)
            elif target in self._told:
                self._told.remove(target)
                self.health.clear_problem(target, JOB)
                log.info("jobs run again", target=target)

    def _look_forever(self) -> None:
        while not self.stop.wait(LOOK_SECONDS):
            self.look()

    def _find_delays(self) -> dict[str, dict[str, int]]:
        """Return the seconds of delay by job, for each target that waits for it."""
        found: dict[str, dict[str, int]] = {}
        for job, delay in self.loop.find_late():
            for target in self.targets if job.target is None else [job.target]:
                found.setdefault(target, {})[job.name] = int(delay)
        return found

    def _record(self, target: str, jobs: dict[str, int]) -> None:
        words = ", ".join(f"{name} by {seconds} s" for name, seconds in jobs.items())
        self.health.record_problem(target, JOB, f"jobs are late: {words}; see the log, or restart the daemon")
        if target in self._told:
            return
        log.error("jobs late", target=target, jobs=jobs)
        self._told.add(target)
        try:
            self.store.report_late_jobs(target, list(jobs), max(jobs.values()), self.clock())
        except StoreUnavailable as problem:
            # The status and the log say it all the same.
            log.warning("no notice of late jobs", target=target, problem=str(problem))
