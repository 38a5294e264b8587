"""Runs looked up from Python, over real HTTP to the operators' API."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import learnd
from daemon.access.accounts import Operators
from daemon.access.sign_in import Authenticator
from daemon.api.app import build_api
from daemon.demo.servers import find_free_port
from daemon.monitoring.metrics import Metrics
from daemon.settings.people import OperatorSettings
from daemon.views.status import Health
from learnd import compare_experiments, get_experiment_details, list_experiments
from learnd.errors import DaemonUnreachable, NoSuchExperiment, RequestRefused
from tests.integration.daemon.cli.test_experiments import three
from tests.support.openai_stand_in import StandIn, serving
from tests.support.runs import NOWHERE, Runs

VIEWER = "vic-token"
OPERATORS = OperatorSettings.model_validate({"users": {"vic": {"role": "viewer"}}, "tokens": {VIEWER: "vic"}})


@contextmanager
def daemon(runs: Runs) -> Iterator[str]:
    authenticator = Authenticator(Operators(OPERATORS, lambda: runs.now), {})
    api = build_api(runs.settings, runs.store, authenticator, Health(), Metrics(), lambda: runs.now)
    with serving(api) as url:
        yield url


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    """A target whose daemon is up, where the environment says."""
    made = Runs(tmp_path, NOWHERE)
    with daemon(made) as url:
        monkeypatch.setenv("LEARND_URL", url)
        monkeypatch.setenv("LEARND_TOKEN", VIEWER)
        yield made
    made.store.close()


def test_runs_are_listed_with_the_same_filters_as_on_the_command_line(runs: Runs) -> None:
    assert list_experiments() == []
    first, look, last = three(runs)
    assert [each.id for each in list_experiments("acme/routing")] == [last, look, first]
    newest = list_experiments(limit=1)[0]
    assert (newest.method, newest.verdict, newest.look, newest.n) == ("sft+dpo", "PROMOTE", "first", 54)
    assert newest.started_at == runs.store.cycle(last).started_at
    assert newest.interval == runs.store.cycle(last).report.find_comparison("base").interval  # type: ignore[union-attr]
    assert [each.id for each in list_experiments(method="dpo")] == [last]
    assert [each.id for each in list_experiments(verdict="PROBATION")] == [first]
    later = datetime(2026, 3, 3, tzinfo=UTC)
    assert [each.id for each in list_experiments(since=later)] == [last, look]
    assert [each.id for each in list_experiments(until=later)] == [first]
    assert list_experiments("acme/other") == []


def test_a_run_is_told_in_full_but_for_each_single_answer(runs: Runs) -> None:
    first, _, _ = three(runs)
    runs.store.mark_published(first, runs.now, "/datasets/D/compare?experimentId=A")
    found = get_experiment_details("acme.routing.v1")
    assert found["run"]["id"] == found["experiment"]["id"] == first
    assert found["run"]["plan"]["reason"] == "30 answers to imitate"
    assert found["run"]["report"]["verdict"] == "PROBATION"
    assert {tuple(side["answers"]) for side in found["run"]["report"]["sides"]} == {()}
    assert found["in_phoenix"] == "http://127.0.0.1:9/datasets/D/compare?experimentId=A"
    with pytest.raises(NoSuchExperiment, match="no run is called 'nonsense/x'"):
        get_experiment_details("nonsense/x")


def test_runs_are_compared(runs: Runs) -> None:
    first, _, last = three(runs)
    found = compare_experiments([first, "acme.routing.v2"])
    assert [each.id for each in found.experiments] == [first, last]
    (accuracy,) = (fact for fact in found.facts if fact.name == "accuracy")
    assert (accuracy.group, accuracy.values, accuracy.best) == ("measures", {first: 0.25, last: 1.0}, (last,))
    assert len(found.notes) == 1
    with pytest.raises(NoSuchExperiment, match="no run is called 'v9'"):
        compare_experiments([first, "v9"])


def test_whoever_has_no_right_token_is_told_so(runs: Runs) -> None:
    three(runs)
    with pytest.raises(RequestRefused, match="POST /api/v1/session"):
        list_experiments(token="wrong")
    with pytest.raises(RequestRefused, match="since: Input should have timezone info"):
        list_experiments(since=datetime(2026, 3, 3))  # noqa: DTZ001 - what is tested


def test_a_daemon_that_is_down_or_is_none_is_told_so() -> None:
    nowhere = f"http://127.0.0.1:{find_free_port()}"
    with pytest.raises(DaemonUnreachable, match="does not answer"):
        list_experiments(url=nowhere)
    with serving(StandIn()) as url, pytest.raises(DaemonUnreachable, match="is it learnd's daemon"):
        list_experiments(url=url)


def test_a_daemon_that_says_why_it_cannot_is_quoted() -> None:
    class Locked(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503)
            self.end_headers()
            self.wfile.write(b'{"detail": "the database is locked; try again"}')

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Locked)
    threading.Thread(target=server.serve_forever).start()
    try:
        with pytest.raises(DaemonUnreachable, match="answered 503: the database is locked; try again"):
            list_experiments(url=f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()


def test_importing_learnd_does_not_load_them() -> None:
    code = "import sys, learnd; print('httpx' in sys.modules, learnd.list_experiments.__module__)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["False", "learnd.experiments"]
    assert {"list_experiments", "get_experiment_details", "compare_experiments"} <= set(learnd.__all__)
