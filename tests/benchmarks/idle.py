"""A daemon whose targets wait for nothing: 100 and 1,000 of them, with Phoenix up and with Phoenix down.

Figures of one process, `learnd run`, over a minute after its start has settled. `beyond_imports_mb` is its
resident memory without that of a Python that has only imported the daemon with its console.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psutil
import tomli_w

from daemon.demo.phoenix import run_phoenix
from daemon.demo.servers import find_free_port, run_server
from tests.support.phoenix import chat_span, send_and_wait

ROOT = Path(__file__).resolve().parents[2]
COUNTS = (100, 1000)
PROJECT = "idle"
"""Of all targets; it holds one call that nobody has said anything about."""
SETTLE_SECONDS = 30
MEASURE_SECONDS = 60
AIMS = {"core_percent": 1.0, "threads": 20.0, "beyond_imports_mb": 50.0}
"""Figures to stay below, for 100 targets while Phoenix is down."""
IMPORTS = (
    "import psutil, daemon.cli.servers, daemon.service, daemon.console.mount; "
    "print(psutil.Process().memory_info().rss)"
)


def measure() -> Mapping[str, Mapping[str, float]]:
    """Return the figures of each case, and the aims."""
    found: dict[str, Mapping[str, float]] = {"aims": AIMS}
    imported = int(subprocess.check_output([sys.executable, "-c", IMPORTS], cwd=ROOT))
    with tempfile.TemporaryDirectory(prefix="learnd-idle-") as name:
        folder, nowhere = Path(name), f"http://127.0.0.1:{find_free_port()}"
        for count in COUNTS:
            found[f"{count}, Phoenix down"] = _measure_one(folder / f"down-{count}", count, nowhere, imported)
        with run_phoenix(folder / "phoenix") as phoenix:
            send_and_wait(phoenix.url, PROJECT, chat_span())
            for count in COUNTS:
                found[f"{count}, Phoenix up"] = _measure_one(
                    folder / f"up-{count}", count, phoenix.url, imported
                )
    return found


def _measure_one(folder: Path, count: int, phoenix: str, imported: int) -> Mapping[str, float]:
    """Run a daemon with `count` targets for a while, and return its figures."""
    folder.mkdir()
    port, config = find_free_port(), folder / "learnd.toml"
    target = {"tenant": "acme", "project": PROJECT, "task": "generation", "base_model": "none"}
    settings = {
        "data_dir": str(folder / "data"),
        "daemon": {"port": port},
        "phoenix": {"url": phoenix},
        "targets": [{**target, "agent": f"agent-{number}"} for number in range(count)],
    }
    config.write_text(tomli_w.dumps(settings), "utf-8")
    with run_server(
        [sys.executable, "-m", "learnd", "run", "--config", str(config)],
        health_url=f"http://127.0.0.1:{port}/healthz",
        log=folder / "daemon.log",
        env={"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        start_seconds=120,
    ) as daemon:
        process = psutil.Process(daemon.pid)
        time.sleep(SETTLE_SECONDS)
        before = process.cpu_times()
        time.sleep(MEASURE_SECONDS)
        after = process.cpu_times()
        used = after.user + after.system - before.user - before.system
        return {
            "core_percent": 100 * used / MEASURE_SECONDS,
            "threads": process.num_threads(),
            "descriptors": process.num_fds(),
            "memory_mb": process.memory_info().rss / 2**20,
            "beyond_imports_mb": (process.memory_info().rss - imported) / 2**20,
        }
