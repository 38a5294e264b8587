"""Starting `learnd run` where it cannot, and what it says of its health."""

import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from daemon.access.accounts import Operators
from daemon.access.sign_in import Authenticator
from daemon.api.app import build_api
from daemon.gateway.run import serve as serve_gateway
from daemon.monitoring.metrics import Metrics
from daemon.runtime.listening import PortTaken
from daemon.service import serve
from daemon.settings.load import Settings
from daemon.views.status import Health
from tests.support.openai_stand_in import serving
from tests.support.runs import NOWHERE, Runs


@pytest.mark.parametrize(("section", "serve"), [("daemon", serve), ("gateway", serve_gateway)])
def test_a_port_that_is_taken_is_told_before_anything_begins(
    section: str, serve: Callable[[Settings], None], tmp_path: Path
) -> None:
    target = {
        "tenant": "acme",
        "agent": "routing",
        "project": "p",
        "task": "generation",
        "base_model": "none",
    }
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Settings.model_validate(
            {"data_dir": tmp_path, section: {"port": port}, "targets": [target | {"base_model": "none"}]}
        )
        with pytest.raises(PortTaken, match=rf"127\.0\.0\.1:{port} .*set another {section}\.port"):
            serve(settings)
    assert not list(tmp_path.rglob("*.db"))


def test_what_phoenix_has_not_got_holds_nothing_up_and_stands_in_the_status(tmp_path: Path) -> None:
    runs = Runs(tmp_path, NOWHERE)
    health, key = Health(), runs.context.target.key
    operators = Operators(runs.settings.operators, lambda: runs.now)
    authenticator = Authenticator(operators, {})
    api = build_api(runs.settings, runs.store, authenticator, health, Metrics(), lambda: runs.now)
    with serving(api) as url:
        health.record_problem(key, "publish", "Phoenix has not got a run")
        assert httpx.get(f"{url}/readyz").status_code == 200
        [entry] = httpx.get(f"{url}/v1/status").json()
        assert entry["problems"] == {"publish": "Phoenix has not got a run"}
        health.record_problem(key, "poll", "Phoenix does not answer")
        assert httpx.get(f"{url}/readyz").status_code == 503
    runs.store.close()
