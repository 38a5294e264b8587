"""A job as the loop runs it: it never raises, waits longer after each failure, and shows what is wrong."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from daemon.monitoring.metrics import Metrics
from daemon.runtime.child_process import Interrupted
from daemon.runtime.paths import hide_folders
from daemon.scheduling.outage import PhoenixAway
from daemon.views.status import Health
from extractors.errors import LearndError
from registry.store.database import StoreUnavailable

log = structlog.get_logger()
LONGEST_PAUSE = 300.0
AGAIN = object()
"""Returned by a job that has more to do, and takes its turn again at once."""


@dataclass
class GuardedJob:
    """A job with its failures. Calling it is the only place that catches everything."""

    name: str
    do: Callable[[], object]
    seconds: float
    """The pause before the first further try is twice as long, and doubles with each failure."""
    targets: Sequence[str]
    """The targets in whose status its problem is shown."""
    health: Health
    metrics: Metrics
    stop: threading.Event
    on_defect: Callable[[str], None] = lambda _words: None
    """Called with the words of an error that nobody expects."""
    failures: int = 0
    """Failures in a row."""

    def __call__(self) -> float | None:
        """Do the job; return the seconds until the next try, or None for the usual period."""
        if self.stop.is_set():
            return None
        try:
            outcome = self.do()
        except Interrupted:
            return None
        except PhoenixAway as away:
            # Whoever found that out has logged it.
            self._show(str(away))
            return away.seconds
        except (LearndError, OSError, StoreUnavailable) as problem:
            # A full disk or a locked database may pass; nothing of the cycle is lost.
            log.warning("job failed", **self._names, problem=str(problem), tries=self.failures + 1)
            return self._fail(str(problem))
        except Exception as bug:
            log.exception("job failed", **self._names)
            words = f"{type(bug).__name__}: {bug}"
            pause = self._fail(words)
            self.on_defect(words)
            return pause
        self.failures = 0
        for target in self.targets:
            self.health.clear_problem(target, self.name)
        return 0.0 if outcome is AGAIN else None

    @property
    def _names(self) -> dict[str, str]:
        """The fields of the log by which the job is known."""
        return {"job": self.name} | ({"target": self.targets[0]} if len(self.targets) == 1 else {})

    def _fail(self, words: str) -> float:
        """Count and show the failure, and return how many seconds to wait."""
        self.failures += 1
        self._show(words)
        for each in self.targets:
            self.metrics.job_failures.labels(each, self.name).inc()
        return float(min(self.seconds * 2 ** min(self.failures, 10), LONGEST_PAUSE))

    def _show(self, problem: str) -> None:
        for target in self.targets:
            self.health.record_problem(target, self.name, hide_folders(problem))
