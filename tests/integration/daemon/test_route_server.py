"""Gateways hear of versions where no daemon runs."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from daemon.demo.servers import find_free_port
from daemon.route_server import serve_routes
from daemon.runtime.gateway_routes import ROUTES_PATH
from daemon.settings.load import Settings
from registry.store.store import Store
from tests.integration.registry.store.store_support import a_candidate, promote


@contextmanager
def open_place(folder: Path, port: int) -> Iterator[tuple[Settings, Store]]:
    target = {"tenant": "acme", "agent": "routing", "project": "p", "task": "generation"}
    settings = Settings.model_validate(
        {"data_dir": folder, "daemon": {"port": port}, "targets": [{**target, "base_model": "none"}]}
    )
    with Store.open(folder, datetime.now(UTC)) as store:
        yield settings, store


def test_it_tells_the_versions_at_the_daemon_s_address_and_nothing_else(tmp_path: Path) -> None:
    with open_place(tmp_path, find_free_port()) as (settings, store):
        version = promote(store, a_candidate(store, "acme/routing"), None)
        with serve_routes(settings, store):
            told = httpx.get(settings.daemon_url + ROUTES_PATH)
            assert told.json() == {"routes": {"acme/routing": {"version": version.id}}}
            for path in ("/", "/docs", "/openapi.json", "/api/v1/targets", "/v1/status"):
                assert httpx.get(settings.daemon_url + path).status_code == 404
            foreign = {"host": "evil.example.com"}
            assert httpx.get(settings.daemon_url + ROUTES_PATH, headers=foreign).status_code == 421
        with pytest.raises(httpx.ConnectError):
            httpx.get(settings.daemon_url + ROUTES_PATH)


def test_where_another_listens_already_the_work_goes_on_and_that_is_logged(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        open_place(tmp_path, taken.getsockname()[1]) as (settings, store),
        serve_routes(settings, store),
    ):
        pass
    assert "gateways are not told of changes now" in "".join(capfd.readouterr())
