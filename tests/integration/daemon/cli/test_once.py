"""`learnd once` beside a Phoenix that accepts connections and never answers."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.cycle.steps import FIRST_ANSWER_TIMEOUT, begin_cycle
from daemon.runtime.clock import utc_now
from daemon.runtime.context import TargetContext
from daemon.settings.load import Settings, load_settings
from extractors.phoenix.http import PhoenixUnreachable
from registry.store.store import Store

CONFIG = """
[phoenix]
url = "http://127.0.0.1:{port}"

[[targets]]
tenant = "acme"
agent = "routing"
project = "p"
task = "classification"
base_model = "none"
"""


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    """Settings that name a Phoenix that hangs."""
    with socket.create_server(("127.0.0.1", 0), backlog=20) as hanging:
        path = tmp_path / "learnd.toml"
        path.write_text(CONFIG.format(port=hanging.getsockname()[1]), "utf-8")
        yield path


@pytest.fixture
def settings(config: Path) -> Settings:
    return load_settings(config)


def test_a_cycle_in_the_foreground_gives_up_where_phoenix_accepts_and_does_not_answer(
    settings: Settings,
) -> None:
    with Store.open(settings.data_dir, utc_now()) as store:
        context = TargetContext(settings, settings.targets[0], store, utc_now)
        began = time.monotonic()
        with pytest.raises(PhoenixUnreachable, match="does not answer"):
            begin_cycle(context, "operator", answer_timeout=0.2)
        assert time.monotonic() - began < 20
        assert "does not answer" in (store.target_state("acme/routing").last_poll_error or "")


def test_a_second_ctrl_c_ends_the_command_at_once(config: Path) -> None:
    command = [sys.executable, "-m", "learnd", "once", "--config", str(config)]
    root = Path(__file__).resolve().parents[4]
    with subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        # Lines of the log may come before it.
        assert "polling\n" in iter(running.stderr.readline, "")
        running.send_signal(signal.SIGINT)
        time.sleep(0.2)
        began = time.monotonic()
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 130
        assert time.monotonic() - began < FIRST_ANSWER_TIMEOUT / 2
        assert "Traceback" not in running.stderr.read()
