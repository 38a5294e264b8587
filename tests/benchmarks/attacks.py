"""Attacks on a running daemon and gateway: what each costs them, and whether they answer others meanwhile.

`seconds` until the attacker has an answer, or is cut; `memory_mb` is what the process grew by at its peak;
`healthz_gap_ms` is the longest that anybody waited for `/healthz`, asked every 50 ms. The dripping receiver's
`seconds` are those from SIGTERM to the daemon's end.
"""

import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import Popen
from urllib.parse import urlsplit

import httpx
import psutil
import tomli_w

from daemon.demo.servers import find_free_port, run_server
from daemon.gateway.route_file import RouteFile
from daemon.runtime.clock import utc_now
from daemon.runtime.gateway_routes import GatewayRoutes, TargetRoute
from registry.store.store import Store
from tests.integration.daemon.monitoring.test_notifications import fail_a_cycle
from tests.support.gateway import ASK
from tests.support.slow_peer import SlowPeer, build_dripping_head, serve_slowly

ROOT = Path(__file__).resolve().parents[2]
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
TARGET = {"tenant": "acme", "agent": "routing", "project": "p", "task": "generation", "base_model": "none"}
Figures = dict[str, float]


def measure() -> Mapping[str, Mapping[str, float]]:
    """Return the figures of each attack."""
    found: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory(prefix="learnd-attacks-") as name:
        folder = Path(name)
        with run_learnd("run", folder / "daemon") as (daemon, url):
            for attack, act in ON_THE_DAEMON.items():
                found[attack] = watch(daemon, url, act)
        for attack, peer in REPLICAS.items():
            with serve_slowly(peer), run_learnd("gateway", folder / "gateway", peer.url) as (gateway, url):
                found[attack] = watch(gateway, url, ask_a_model)
                assert peer.connected.is_set()
        with run_learnd("gateway", folder / "gateway", "http://127.0.0.1:1") as (gateway, url):
            found["gateway: one header of 150 MB"] = watch(gateway, url, send_a_long_header)
        found["a command that writes 300 MB"] = run_a_loud_command(folder / "command")
        found["a receiver that drips, and SIGTERM"] = stop_beside_a_dripping_receiver(folder / "notify")
    return found


@contextmanager
def run_learnd(
    command: str, folder: Path, replica: str | None = None, **settings: object
) -> Iterator[tuple["Popen[bytes]", str]]:
    """Run `learnd run` or `learnd gateway` with one target."""
    folder.mkdir(exist_ok=True)
    known_routes = RouteFile(folder / "data" / "gateway")
    known_routes.prepare()
    known_routes.write(GatewayRoutes(routes={"acme/routing": TargetRoute(version=None)}))
    port, config = find_free_port(), folder / "learnd.toml"
    replicas = [{"name": "one", "url": replica, "base_name": "base"}] if replica else []
    section = "daemon" if command == "run" else "gateway"
    known = {
        "data_dir": str(folder / "data"),
        "phoenix": {"url": f"http://127.0.0.1:{find_free_port()}"},
        section: {"port": port, **({"trace": False} if command == "gateway" else {})},
        "replicas": replicas,
        "targets": [TARGET],
    }
    config.write_text(tomli_w.dumps({**known, **settings}), "utf-8")
    url = f"http://127.0.0.1:{port}"
    with run_server(
        [sys.executable, "-m", "learnd", command, "--config", str(config)],
        health_url=f"{url}/healthz",
        log=folder / "log",
        env={"PYTHONPATH": str(ROOT)},
        start_seconds=120,
    ) as process:
        yield process, url


def watch(process: "Popen[bytes]", url: str, act: Callable[[str], object]) -> Figures:
    """Return what the act costs the process."""
    seen, stop = psutil.Process(process.pid), threading.Event()
    before = peak = seen.memory_info().rss
    highest = read_highest_memory(process)
    gap = 0.0

    def look() -> None:
        nonlocal peak, gap
        with httpx.Client(timeout=600) as client:
            while not stop.wait(0.05):
                began = time.perf_counter()
                client.get(f"{url}/healthz")
                gap = max(gap, time.perf_counter() - began)
                peak = max(peak, seen.memory_info().rss)

    looking = threading.Thread(target=look)
    looking.start()
    time.sleep(1)
    began = time.perf_counter()
    act(url)
    seconds = time.perf_counter() - began
    time.sleep(0.5)
    stop.set()
    looking.join()
    # A peak that nobody saw, because `/healthz` was waited for, is known to the kernel.
    grown = max(peak - before, read_highest_memory(process) - highest)
    return {"seconds": seconds, "memory_mb": grown / 2**20, "healthz_gap_ms": 1000 * gap}


def read_highest_memory(process: "Popen[bytes]") -> int:
    """Return the most bytes that the process has had in memory since its start; 0 where nobody knows."""
    status = Path(f"/proc/{process.pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def send(url: str, *pieces: bytes) -> None:
    """Send the pieces until all are sent or the peer has enough, and wait for its end."""
    where = urlsplit(url)
    with socket.create_connection((str(where.hostname), where.port or 80), timeout=600) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
            while connection.recv(2**16):
                pass
        except (ConnectionResetError, BrokenPipeError):
            pass


def send_brackets(url: str) -> None:
    """Send 60 MB of JSON without a credential."""
    body = b"[" + b"[]," * (20 * 2**20)
    head = (
        b"POST /api/v1/batches/b-1/decisions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    send(url, head, body)


def send_a_long_header(url: str) -> None:
    """Send one header of 150 MB."""
    send(url, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: ", *[b"a" * 2**20] * 150)


def hold_connections(url: str) -> None:
    """Open 280 connections that send half a head, and wait until all are closed."""
    where = urlsplit(url)
    with ExitStack() as stack:
        opened = [
            stack.enter_context(socket.create_connection((str(where.hostname), where.port), timeout=600))
            for _ in range(280)
        ]
        for each in opened:
            each.sendall(b"GET / HTTP/1.1\r\nHost:")
        for each in opened:
            while each.recv(2**16):
                pass


def ask_for_pages(url: str) -> None:
    """Ask for 200 pages of the console that are not there."""
    with httpx.Client(base_url=url, timeout=600) as client:
        for number in range(200):
            client.get(f"/console/nowhere-{number}")


def ask_a_model(url: str) -> None:
    """Ask the gateway's only replica for a chat."""
    with (
        httpx.Client(base_url=url, timeout=600) as client,
        client.stream("POST", "/v1/chat/completions", json=ASK) as answer,
    ):
        try:
            for _ in answer.iter_raw():
                pass
        except httpx.RemoteProtocolError:
            pass


ON_THE_DAEMON: Mapping[str, Callable[[str], object]] = {
    "60 MB of JSON from a stranger": send_brackets,
    "one header of 150 MB": send_a_long_header,
    "280 half-open connections": hold_connections,
    "200 unknown pages of the console": ask_for_pages,
}
REPLICAS = {
    "an event without an end": SlowPeer(STREAM + b"data: ", b"a" * 2**20, pause=0),
    "an answer without an end": SlowPeer(WHOLE, b" " * 2**20, pause=0),
    "an answer of deep JSON": SlowPeer(
        WHOLE.replace(b"\r\n\r\n", b"\r\nContent-Length: 20000000\r\n\r\n") + b"[" * 20_000_000, b""
    ),
}


def run_a_loud_command(folder: Path) -> Figures:
    """Let a notice go to a command that writes 300 MB, and return what that costs the daemon."""
    done = folder / "done"
    script = f"yes | head -c 300000000; yes | head -c 300000000 >&2; touch {done}"
    prepare(folder)
    receiver = {"name": "ops", "command": ["sh", "-c", script], "timeout_seconds": 60}
    with run_learnd("run", folder, notify=[receiver]) as (daemon, url):
        return watch(daemon, url, lambda _: wait_for(done.exists))


def stop_beside_a_dripping_receiver(folder: Path) -> Figures:
    """Return how long the daemon takes to end while a receiver drips."""
    prepare(folder)
    with serve_slowly(build_dripping_head()) as peer:
        receiver = {"name": "ops", "url": peer.url, "timeout_seconds": 60}
        with run_learnd("run", folder, notify=[receiver]) as (daemon, _):
            peer.connected.wait(60)
            began = time.perf_counter()
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(600)
            return {"seconds": time.perf_counter() - began}


def prepare(folder: Path) -> None:
    """Let a notice wait for the receiver `ops`."""
    folder.mkdir()
    now = utc_now()
    with Store.open(folder / "data", now) as store:
        store.add_receiver("ops")
        fail_a_cycle(store, now=now)


def wait_for(condition: Callable[[], bool]) -> None:
    """Return when the condition holds."""
    while not condition():
        time.sleep(0.05)
