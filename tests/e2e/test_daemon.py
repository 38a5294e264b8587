"""`learnd run` on real parts: it learns by itself, heals replicas, and stops when it is told to."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from daemon.demo.phoenix import PhoenixServer
from daemon.demo.servers import find_free_port, run_server
from daemon.demo.vllm import VllmServer
from learnd import ActiveAdapter
from tests.e2e.team import Team, new_team

PATIENCE = 240.0


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE:.0f} s for {what}"
        time.sleep(0.5)


def list_loaded(vllm: VllmServer) -> set[str]:
    return {model["id"] for model in httpx.get(f"{vllm.url}/v1/models", timeout=30).json()["data"]}


@pytest.fixture
def team(tmp_path: Path, phoenix: PhoenixServer, vllm: VllmServer, tiny_model: Path) -> Iterator[Team]:
    made = new_team(tmp_path, f"d{uuid4().hex[:8]}", phoenix=phoenix.url, vllm=vllm.url, model=tiny_model)
    yield made
    for name in list_loaded(vllm):
        if name.startswith(made.settings.targets[0].slug):
            httpx.post(f"{vllm.url}/v1/unload_lora_adapter", json={"lora_name": name}, timeout=30)


def test_the_daemon_learns_by_itself_heals_a_replica_and_stops_when_told(
    team: Team, vllm: VllmServer, tmp_path: Path
) -> None:
    port = find_free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "learnd", "run", "--config", str(team.config)]
    env = {"LEARND_DAEMON__PORT": str(port)}
    log = tmp_path / "daemon.log"
    with run_server(command, health_url=f"{url}/healthz", log=log, env=env, start_seconds=60) as daemon:
        second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert second.returncode == 1
        assert "is held by process" in second.stderr

        def status() -> dict[str, object]:
            return httpx.get(f"{url}/v1/status", timeout=30).json()[0]

        wait_until(lambda: status()["active_version"] is not None, "the first version to go live")
        version = str(status()["active_version"])
        assert version in list_loaded(vllm)
        wait_until(lambda: status()["replicas"] == {"local": "ok"}, "the replica's health")
        assert httpx.get(f"{url}/readyz", timeout=30).status_code == 200

        # As after a restart of vLLM: what was loaded at run time is gone.
        httpx.post(f"{vllm.url}/v1/unload_lora_adapter", json={"lora_name": version}, timeout=30)
        wait_until(lambda: version in list_loaded(vllm), "the reconciler to restore the version")

        with ActiveAdapter(team.key, url=url, state_dir=tmp_path / "state") as adapter:
            assert adapter.resolve().version == version
            files = {path.name for path in adapter.fetch(tmp_path / "pulled").iterdir()}
        assert {"adapter_model.safetensors", "adapter_config.json"} <= files

        metrics = httpx.get(f"{url}/metrics", timeout=30).text
        assert f'learnd_active_version{{target="{team.key}"}} 1.0' in metrics
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(30) == 0
    assert "stopping" in log.read_text()
