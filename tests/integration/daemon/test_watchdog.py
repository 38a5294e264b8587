"""Jobs that did not run: what the status, `/readyz` and the notices say."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from daemon.access.accounts import Operators
from daemon.access.sign_in import Authenticator
from daemon.api.app import build_api
from daemon.monitoring.metrics import Metrics
from daemon.scheduling.job_loop import Job, JobLoop
from daemon.views.status import Health
from daemon.watchdog import Watchdog
from tests.support.openai_stand_in import serving
from tests.support.runs import NOWHERE, Runs

DAY = timedelta(days=1)


@dataclass
class Watched:
    """A loop that is not started, with a clock that the test moves on."""

    runs: Runs
    health: Health = field(default_factory=Health)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.loop = JobLoop({"phoenix": 1}, lambda: self.seconds)
        self.ran = threading.Event()
        self.loop.add(Job("poll", "phoenix", self.ran.set, every=30, target=self.target))
        self.watchdog = Watchdog(
            self.loop, self.runs.store, self.health, [self.target], lambda: self.runs.now, threading.Event()
        )

    @property
    def target(self) -> str:
        return self.runs.context.target.key

    def list_notices(self) -> list[tuple[str, dict[str, object]]]:
        due = self.runs.store.find_due_notices(
            "ops", ["jobs.late"], since=self.runs.now - DAY, now=datetime.now(UTC) + DAY
        )
        return [(each.notice.event, each.notice.details) for each in due]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    runs = Runs(tmp_path, NOWHERE)
    runs.store.add_receiver("ops")
    yield Watched(runs)
    runs.store.close()


def test_a_job_that_does_not_run_is_told_once_and_forgotten_when_it_runs_again(watched: Watched) -> None:
    watched.watchdog.look()
    assert watched.health.read(watched.target).problems == {}
    watched.seconds = 90
    watched.watchdog.look()
    watched.seconds = 100
    watched.watchdog.look()
    assert watched.health.read(watched.target).problems == {
        "watchdog": "jobs are late: poll by 100 s; see the log, or restart the daemon"
    }
    assert watched.list_notices() == [("jobs.late", {"jobs": "poll", "seconds": 90})]
    watched.loop.start()
    assert watched.ran.wait(30)
    watched.loop.close()
    watched.watchdog.look()
    assert watched.health.read(watched.target).problems == {}


def test_a_daemon_with_late_jobs_is_not_ready(watched: Watched) -> None:
    runs = watched.runs
    authenticator = Authenticator(Operators(runs.settings.operators, lambda: runs.now), {})
    api = build_api(runs.settings, runs.store, authenticator, watched.health, Metrics(), lambda: runs.now)
    with serving(api) as url:
        assert httpx.get(f"{url}/readyz").json() == {
            "ready": True,
            "targets_with_problems": 0,
            "targets_with_late_jobs": 0,
        }
        watched.seconds = 90
        watched.watchdog.look()
        answer = httpx.get(f"{url}/readyz")
        assert answer.status_code == 503
        assert answer.json()["targets_with_late_jobs"] == 1
