"""A daemon that is told to stop while a server holds its calls."""

import signal
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
import tomli_w

from daemon.demo.servers import find_free_port, run_server
from extractors.phoenix.client import PhoenixClient
from extractors.phoenix.http import PhoenixUnreachable
from registry.store.store import Store
from tests.support.slow_peer import build_dripping_head, serve_slowly

ROOT = Path(__file__).resolve().parents[2]


def test_a_phoenix_that_drips_does_not_hold_the_daemons_end(tmp_path: Path) -> None:
    port, config, log = find_free_port(), tmp_path / "learnd.toml", tmp_path / "daemon.log"
    target = {"tenant": "acme", "agent": "routing", "project": "p", "task": "generation"}
    with serve_slowly(build_dripping_head()) as peer:
        settings = {
            "data_dir": str(tmp_path / "data"),
            "daemon": {"port": port},
            "phoenix": {"url": peer.url},
            "targets": [{**target, "base_model": "none"}],
        }
        config.write_text(tomli_w.dumps(settings), "utf-8")
        with run_server(
            [sys.executable, "-m", "learnd", "run", "--config", str(config)],
            health_url=f"http://127.0.0.1:{port}/healthz",
            log=log,
            env={"PYTHONPATH": str(ROOT)},
            start_seconds=120,
        ) as daemon:
            assert peer.connected.wait(60)
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(60) == 0
        assert peer.left.wait(20)
    assert "jobs cut off" in log.read_text()
    Store.open(tmp_path / "data", datetime.now(UTC)).close()


def test_a_phoenix_that_is_away_is_not_asked_again_after_the_stop() -> None:
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with (
        PhoenixClient(f"http://127.0.0.1:{find_free_port()}", patience=600, stop=stop) as client,
        pytest.raises(PhoenixUnreachable, match="before learnd was stopped"),
    ):
        client.version()
