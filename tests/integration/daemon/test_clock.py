"""`learnd run` as a process, under a clock that is set back by days, and beside a Phoenix that hangs."""

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import tomli_w

from daemon.demo.phoenix import PhoenixServer
from daemon.demo.servers import find_free_port, run_server
from tests.support.phoenix import chat_span, send_and_wait, wait_until

ROOT = Path(__file__).resolve().parents[3]
TOKEN = "a-token-of-ann"
TWO_DAYS = timedelta(days=2)


@dataclass(frozen=True)
class SteppedDaemon:
    """A daemon whose clock is ahead by the seconds in a file."""

    api: httpx.Client
    offset: Path

    def step(self, ahead: timedelta) -> None:
        new = self.offset.with_suffix(".new")
        new.write_text(str(ahead.total_seconds()))
        new.replace(self.offset)

    def read_status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.api.get("/api/v1/targets/acme/routing").raise_for_status().json()
        return status

    def wait_for_poll(self, clock: timedelta) -> None:
        """Wait for a poll that ended well at a time that is near the daemon's, which is `clock` ahead."""

        def polled() -> bool:
            status = self.read_status()
            at, error = status["last_poll_at"], status["last_poll_error"]
            if at is None or error is not None:
                return False
            return abs(datetime.fromisoformat(at) - datetime.now(UTC) - clock) < timedelta(hours=1)

        wait_until(polled, 60, "a poll by the clock that the daemon has now")

    def run_cycle(self) -> str:
        """Ask for a cycle, wait until it has ended, and return its id."""
        before = self.list_cycles()
        assert self.api.post("/api/v1/targets/acme/routing/start", json={}).status_code == 202
        wait_until(lambda: len(self.list_cycles()) > len(before), 60, "a cycle after the one before")
        wait_until(lambda: set(self.list_cycles().values()) <= {"SKIPPED", "FAILED"}, 60, "its end")
        (new,) = self.list_cycles().keys() - before.keys()
        return new

    def list_cycles(self) -> dict[str, str]:
        """Return the states of all cycles by id."""
        listed = self.api.get("/api/v1/cycles").raise_for_status().json()
        return {cycle["id"]: cycle["state"] for cycle in listed}


@contextmanager
def run_stepped_daemon(
    folder: Path, phoenix: str, projects: dict[str, str], ahead: timedelta = timedelta()
) -> Iterator[SteppedDaemon]:
    """Run a daemon with a target for each agent and its project."""
    port, config, offset = find_free_port(), folder / "learnd.toml", folder / "offset"
    target = {"tenant": "acme", "task": "generation", "base_model": "none"}
    settings = {
        "data_dir": str(folder / "data"),
        "daemon": {"port": port},
        "phoenix": {"url": phoenix, "poll_seconds": 0.5},
        "operators": {"users": {"ann": {}}},
        "targets": [{**target, "agent": agent, "project": project} for agent, project in projects.items()],
    }
    config.write_text(tomli_w.dumps(settings), "utf-8")
    offset.write_text(str(ahead.total_seconds()))
    url = f"http://127.0.0.1:{port}"
    with (
        run_server(
            [sys.executable, "-m", "tests.support.stepped_daemon", str(config), str(offset)],
            health_url=f"{url}/healthz",
            log=folder / "daemon.log",
            env={
                "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
                "LEARND_OPERATORS__TOKENS": f'{{"{TOKEN}": "ann"}}',
            },
            start_seconds=120,
        ),
        httpx.Client(base_url=url, headers={"authorization": f"Bearer {TOKEN}"}, timeout=30) as api,
    ):
        yield SteppedDaemon(api, offset)


def test_a_clock_that_is_set_back_by_two_days_stops_no_job(
    phoenix: PhoenixServer, project: str, tmp_path: Path
) -> None:
    send_and_wait(phoenix.url, project, chat_span())
    with run_stepped_daemon(tmp_path, phoenix.url, {"routing": project}, ahead=TWO_DAYS) as daemon:
        daemon.wait_for_poll(TWO_DAYS)
        first = daemon.run_cycle()
        daemon.step(timedelta())
        daemon.wait_for_poll(timedelta())
        second = daemon.run_cycle()
        third = daemon.run_cycle()
        assert len({first, second, third}) == 3
        assert "watchdog" not in daemon.read_status()["problems"]


def test_a_phoenix_that_accepts_and_never_answers_holds_up_no_cycle(tmp_path: Path) -> None:
    agents = {f"agent-{number}": "p" for number in range(12)} | {"routing": "p"}
    with hanging_server() as hanging, run_stepped_daemon(tmp_path, hanging, agents) as daemon:
        # Every thread for Phoenix waits by now, or soon.
        daemon.run_cycle()
        assert daemon.api.get("/healthz").status_code == 200


@contextmanager
def hanging_server() -> Iterator[str]:
    """Accept connections and never answer; yield the address."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    for each in held:
        each.close()
