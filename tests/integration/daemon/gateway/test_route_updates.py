"""How the gateway learns what to serve: from a real daemon in its own process, which may be down or hang."""

import asyncio
import os
import signal
import stat
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from subprocess import Popen
from typing import Any

import httpx
import pytest
import tomli_w
from pydantic import ValidationError

from daemon.access.tokens import TokensMissing
from daemon.demo.servers import find_free_port, run_server
from daemon.gateway.route_file import RouteFile, RoutesDamaged, StateDirUnusable
from daemon.gateway.route_updates import DaemonAddress, RouteUpdates
from daemon.gateway.routes import RouteTable
from daemon.gateway.run import serve
from daemon.gateway.upstream import open_session
from daemon.runtime.clock import utc_now
from daemon.runtime.gateway_routes import GatewayRoutes, TargetRoute
from daemon.settings.load import Settings, load_settings
from registry.store.store import Store
from registry.versions import Version
from tests.integration.registry.store.store_support import a_candidate, promote
from tests.support.gateway import ASK, RouteSource, gateway, route
from tests.support.openai_stand_in import StandIn, serving
from tests.support.phoenix import wait_until

ROOT = Path(__file__).resolve().parents[4]
TARGET = "acme/routing"
AGENT = {"authorization": "Bearer agent-token"}
KNOWN = GatewayRoutes(routes={TARGET: TargetRoute(version="acme.routing.v1")})


class Place:
    """Settings of a daemon and a gateway on this machine, with the processes that a test starts."""

    def __init__(self, folder: Path, replica: str) -> None:
        self.folder = folder
        target = {"tenant": "acme", "agent": "routing", "project": "p", "task": "generation"}
        content: dict[str, Any] = {
            "data_dir": "data",
            "phoenix": {"url": "http://127.0.0.1:9"},
            "daemon": {"port": find_free_port()},
            "gateway": {
                "port": find_free_port(),
                "state_dir": "state",
                "daemon_token_file": "gateway-token",
                "trace": False,
            },
            "agents": {"tokens_file": "agents"},
            "replicas": [{"name": "local", "url": replica}],
            "targets": [{**target, "base_model": "none"}],
        }
        (folder / "agents").write_text("agent-token acme\n", "utf-8")
        (folder / "gateway-token").write_text("token-of-the-gateway\n", "utf-8")
        self.config = folder / "learnd.toml"
        self.config.write_text(tomli_w.dumps(content), "utf-8")
        self.settings = load_settings(self.config)
        self.gateway_url = f"http://127.0.0.1:{self.settings.gateway.port}"
        self.store = Store.open(self.settings.data_dir, datetime.now(UTC))

    @contextmanager
    def run(self, command: str, health_url: str) -> Iterator["Popen[bytes]"]:
        with run_server(
            [sys.executable, "-m", "learnd", command, "--config", str(self.config)],
            health_url=health_url,
            log=self.folder / f"{command}.log",
            env={"PYTHONPATH": str(ROOT)},
            start_seconds=120,
        ) as process:
            yield process

    def run_daemon(self) -> Any:
        return self.run("run", f"{self.settings.daemon_url}/healthz")

    def run_gateway(self) -> Any:
        return self.run("gateway", f"{self.gateway_url}/healthz")

    def ask(self) -> httpx.Response:
        return httpx.post(f"{self.gateway_url}/v1/chat/completions", json=ASK, headers=AGENT, timeout=30)

    def serves(self, version: str) -> bool:
        answer = self.ask()
        assert answer.status_code == 200, answer.text
        return answer.headers["x-learnd-version"] == version

    def activate(self, over: Version | None) -> Version:
        """Activate another version from this process, as the command line does."""
        return promote(self.store, a_candidate(self.store, TARGET), over)

    def read_health(self, path: str = "/readyz") -> str:
        return str(httpx.get(self.gateway_url + path, timeout=30).json()["daemon"])


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    replica = StandIn(models={"base", "acme.routing.v1", "acme.routing.v2", "acme.routing.v3"})
    with serving(replica) as url:
        made = Place(tmp_path, url)
        yield made
        made.store.close()


def test_what_another_process_activates_is_served_and_no_daemon_that_fails_costs_a_request(
    place: Place,
) -> None:
    with ExitStack() as stack:
        daemon = stack.enter_context(place.run_daemon())
        stack.enter_context(place.run_gateway())
        assert place.serves("base")
        first = place.activate(None)
        wait_until(lambda: place.serves(first.id), 20, "the first version to be served")
        assert place.read_health() == "ok"

        daemon.send_signal(signal.SIGSTOP)  # It hangs: connections are accepted, and nothing is answered.
        wait_until(lambda: "not heard since" in place.read_health(), 60, "the gateway to say so")
        assert place.serves(first.id)
        daemon.send_signal(signal.SIGCONT)
        second = place.activate(first)
        wait_until(lambda: place.serves(second.id), 30, "the second version to be served")

        daemon.kill()
        daemon.wait(20)
        for _ in range(50):
            assert place.serves(second.id)
        wait_until(lambda: "not heard since" in place.read_health("/healthz"), 60, "the gateway to say so")
        metrics = httpx.get(f"{place.gateway_url}/metrics", headers=AGENT).text
        silent = next(
            line for line in metrics.splitlines() if line.startswith("learnd_gateway_daemon_silent")
        )
        assert float(silent.split()[1]) > 0
        assert httpx.get(f"{place.gateway_url}/readyz").status_code == 200


def test_a_gateway_starts_without_the_daemon_from_what_it_knew_last(place: Place) -> None:
    with place.run_gateway():
        refused = place.ask()
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "not heard from the daemon" in refused.text
        assert httpx.get(f"{place.gateway_url}/readyz").status_code == 503
        with place.run_daemon():
            first = place.activate(None)
            wait_until(lambda: place.ask().status_code == 200, 20, "the daemon to be heard")
            wait_until(lambda: place.serves(first.id), 20, "the version to be served")
    with place.run_gateway():
        assert place.serves(first.id)
        assert "not heard since" in place.read_health()
    kept = place.settings.gateway_state_dir / "routes.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert [file.name for file in kept.parent.iterdir()] == ["routes.json"]

    kept.write_bytes(kept.read_bytes().replace(b"v1", b"v2"))
    with place.run_gateway():
        assert place.ask().status_code == 503
        assert "digest" in (place.folder / "gateway.log").read_text("utf-8")
        with place.run_daemon():
            wait_until(lambda: place.ask().status_code == 200, 20, "the daemon to be asked anew")
            assert place.serves(first.id)
    assert RouteFile(kept.parent).read() is not None


def test_without_the_gateway_s_token_it_does_not_start(place: Place) -> None:
    settings = place.settings.model_copy(
        update={"gateway": place.settings.gateway.model_copy(update={"daemon_token_file": None})}
    )
    with pytest.raises(TokensMissing, match=r"gateway\.daemon_token_file"):
        serve(settings)


def test_with_a_token_that_is_not_the_daemon_s_nothing_is_guessed(caplog: pytest.LogCaptureFixture) -> None:
    with gateway(RouteSource(route()), daemon_token="wrong", daemon_asks_for="right") as client:
        wait_until(lambda: "not heard since" in client.get("/readyz").json()["daemon"], 10, "it to be said")
        assert client.post("/v1/chat/completions", json=ASK).status_code == 503
    assert "HTTP 401" in caplog.text


def test_a_target_that_only_one_side_knows_is_logged_and_the_others_are_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    replica = StandIn()
    with serving(replica) as url:
        store = RouteSource(route(url), route(url, target="acme/new"))
        table = RouteTable(store.routes.values())
        with gateway(store, table=table) as client:
            assert client.post("/v1/chat/completions", json={**ASK, "model": "acme/new"}).status_code == 200
            del store.routes["acme/new"]
            store.routes["acme/other"] = route(url, target="acme/other")
            gone = {**ASK, "model": "acme/new"}
            wait_until(
                lambda: client.post("/v1/chat/completions", json=gone).status_code == 503, 10, "the news"
            )
            assert "does not know `acme/new`" in client.post("/v1/chat/completions", json=gone).text
            other = client.post("/v1/chat/completions", json={**ASK, "model": "acme/other"})
            assert other.status_code == 404
            assert client.post("/v1/chat/completions", json=ASK).status_code == 200
            assert [model["id"] for model in client.get("/v1/models").json()["data"]] == [TARGET]
    told = [record.getMessage() for record in caplog.records if "not served" in record.getMessage()]
    assert [message.rpartition(" ")[2] for message in told] == ["acme/new", "acme/other"]


def test_what_a_newer_daemon_tells_besides_is_passed_over() -> None:
    told = GatewayRoutes.model_validate_json(
        '{"routes": {"acme/routing": {"version": "v1", "canary": {"share": 0.1}}}, "more": 1}'
    )
    assert told.routes[TARGET].version == "v1"


@pytest.mark.parametrize("tag", [b'"\t\x0b"', b'"\xff\xfe"', "\u201cv1\u201d".encode(), b""])
async def test_a_tag_that_no_header_can_carry_does_not_end_the_asking(tmp_path: Path, tag: bytes) -> None:
    table, answer = RouteTable([route()]), KNOWN.model_dump_json().encode()
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\nETag: %s\r\n\r\n"
    asked = asyncio.Semaphore(0)

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.release()
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head % (len(answer), tag) + answer)
        writer.close()

    server = await asyncio.start_server(tell, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    updates = RouteUpdates(DaemonAddress(url, None), table, RouteFile(tmp_path), utc_now)
    async with server, open_session() as session:
        following = asyncio.create_task(updates.follow(session))
        async with asyncio.timeout(20):
            for _ in range(3):
                await asked.acquire()
        assert not following.done()
        assert (table.ready, updates.silent_seconds) == (True, 0.0)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


def test_the_file_is_replaced_whole_and_damage_is_told(tmp_path: Path) -> None:
    file = RouteFile(tmp_path / "state")
    assert file.read() is None
    file.prepare()
    file.write(KNOWN)
    assert file.read() == KNOWN
    whole = file.path.read_bytes()
    for damaged in (b"", whole[:-9], b"[]", whole.replace(b"v1", b"v7"), b"\xff\xfe"):
        file.path.write_bytes(damaged)
        with pytest.raises(RoutesDamaged, match=r"routes\.json"):
            file.read()


def test_gateways_that_share_a_folder_and_a_process_id_leave_a_whole_file(tmp_path: Path) -> None:
    file, routes = (
        RouteFile(tmp_path),
        [
            GatewayRoutes(routes={f"acme/{n}": TargetRoute(version=version) for n in range(500)})
            for version in ("v1", "v2")
        ],
    )
    file.write(routes[0])

    def write(mine: GatewayRoutes) -> None:
        for _ in range(30):
            file.write(mine)

    with ThreadPoolExecutor() as pool:
        writing = [pool.submit(write, mine) for mine in routes]
        while not all(each.done() for each in writing):
            assert file.read() in routes
        for each in writing:
            each.result()
    assert [path.name for path in tmp_path.iterdir()] == ["routes.json"]


def test_what_a_killed_gateway_left_is_removed_and_what_another_writes_is_not(tmp_path: Path) -> None:
    left, written = tmp_path / ".routes.json.1", tmp_path / ".routes.json.2"
    left.touch()
    written.touch()
    os.utime(left, (1_000_000_000, 1_000_000_000))
    RouteFile(tmp_path).prepare()
    assert [path.name for path in tmp_path.iterdir()] == [".routes.json.2"]


def test_a_folder_of_its_own_that_cannot_be_used_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateDirUnusable, match=r"gateway\.state_dir"):
        RouteFile(tmp_path / "file" / "state").prepare()


@pytest.mark.parametrize(
    ("daemon", "url"),
    [
        ({}, "http://127.0.0.1:8710"),
        ({"host": "0.0.0.0", "port": 9000}, "http://127.0.0.1:9000"),  # noqa: S104
        ({"host": "::"}, "http://127.0.0.1:8710"),
        ({"host": "::1"}, "http://[::1]:8710"),
    ],
)
def test_the_daemon_is_looked_for_where_it_listens(daemon: dict[str, Any], url: str) -> None:
    assert Settings.model_validate({"daemon": daemon}).daemon_url == url
    elsewhere = {"daemon": daemon, "gateway": {"daemon_url": "http://learnd:8710/"}}
    assert Settings.model_validate(elsewhere).daemon_url == "http://learnd:8710"


def test_a_version_that_no_header_can_carry_is_refused() -> None:
    for version in ("v1\r\nx-evil: 1", "", "v 1", "vé"):
        with pytest.raises(ValidationError):
            TargetRoute(version=version)
