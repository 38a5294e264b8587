"""A whole daemon, with its API and console, whose routes and callers are known to a test.

A process has one console at most. `python -m tests.support.daemon_doors FOLDER PORT` is one of its own.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from argon2 import PasswordHasher
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import Mount

from daemon.access.sign_in import COOKIE
from daemon.demo.servers import find_free_port, run_server
from daemon.monitoring.metrics import Metrics
from daemon.runtime.clock import utc_now
from daemon.runtime.listening import open_socket
from daemon.server import build_daemon_server
from daemon.settings.load import Settings
from daemon.views.status import Health
from registry.store.store import Store
from tests.support.phoenix import wait_until

PASSWORD = "a long password of ann and vic"
# A cheap one: the tests are not about how long argon2 takes.
HASH = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)
OPERATOR, VIEWER, AGENT, OTHER_AGENT = "token-of-ann", "token-of-vic", "token-of-acme", "token-of-other"
GATEWAY = "token-of-the-gateway"
AGENTS = {AGENT: "acme", OTHER_AGENT: "other"}


@dataclass(frozen=True)
class Doors:
    """A daemon that runs."""

    url: str
    app: FastAPI
    store: Store

    def sign_in(self, name: str) -> dict[str, str]:
        """Return the headers of a new session's requests, with its CSRF token."""
        answer = httpx.post(f"{self.url}/api/v1/session", json={"name": name, "password": PASSWORD})
        return {"Cookie": f"{COOKIE}={answer.cookies[COOKIE]}", "X-CSRF-Token": answer.json()["csrf_token"]}

    def list_routes(self) -> list[tuple[str, str]]:
        """Return method and path of every route, those of the console and of everything mounted too."""
        return sorted(_walk(self.app.routes, ""))


@contextmanager
def run_doors(folder: Path, **daemon: Any) -> Iterator[Doors]:
    """Serve API and console without any jobs; once a process, because of the console."""
    with Store.open(folder, utc_now()) as store, open_socket("127.0.0.1", 0, "port") as listening:
        server = _build_server(folder, store, **daemon)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        wait_until(lambda: server.started, 60, "the server to start")
        try:
            app = server.config.app
            assert isinstance(app, FastAPI)
            yield Doors(f"http://127.0.0.1:{listening.getsockname()[1]}", app, store)
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def run_doors_apart(folder: Path) -> Iterator[tuple[str, Store]]:
    """Serve the same in a process of its own; gives its URL and its store."""
    port = find_free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "tests.support.daemon_doors", str(folder), str(port)]
    with (
        Store.open(folder, utc_now()) as store,
        run_server(command, health_url=f"{url}/healthz", log=folder / "log.txt", env={}, start_seconds=60),
    ):
        yield url, store


def _build_server(folder: Path, store: Store, **daemon: Any) -> uvicorn.Server:
    target = {"tenant": "acme", "agent": "routing", "project": "p", "task": "generation"}
    users = {"ann": {"password_hash": HASH}, "vic": {"role": "viewer", "password_hash": HASH}}
    settings = Settings.model_validate(
        {
            "data_dir": folder,
            "daemon": daemon,
            "agents": {"tokens": AGENTS},
            "gateway": {"daemon_token": GATEWAY},
            "operators": {"users": users, "tokens": {OPERATOR: "ann", VIEWER: "vic"}},
            "targets": [{**target, "base_model": "none"}],
        }
    )
    return build_daemon_server(settings, store, Health(), Metrics(), AGENTS, utc_now)


def _walk(routes: Any, prefix: str) -> Iterator[tuple[str, str]]:
    for route in iter_route_contexts(routes):
        if isinstance(route.original_route, Mount) or not route.methods:
            below = getattr(route.original_route, "routes", None)
            if below:
                yield from _walk(below, f"{prefix}{route.path}")
            else:
                yield "GET", f"{prefix}{route.path}/anything"
        else:
            for method in route.methods:
                yield method, f"{prefix}{route.path}"


if __name__ == "__main__":
    with (
        Store.open(Path(sys.argv[1]), utc_now()) as own_store,
        open_socket("127.0.0.1", int(sys.argv[2]), "port") as own_socket,
    ):
        _build_server(Path(sys.argv[1]), own_store).run(sockets=[own_socket])
