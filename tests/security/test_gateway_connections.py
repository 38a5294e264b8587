"""Agents that hold connections, heads and bodies of the gateway, over real sockets."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
import tomli_w

from daemon.demo.servers import find_free_port
from daemon.gateway.route_file import RouteFile
from daemon.runtime.gateway_routes import GatewayRoutes, TargetRoute
from daemon.runtime.http_server import HttpLimits
from tests.support.gateway import ASK, RouteSource, gateway, route
from tests.support.openai_stand_in import StandIn, serving
from tests.support.phoenix import wait_until

ROOT = Path(__file__).resolve().parents[2]
SHORT = HttpLimits(head_seconds=0.4, body_seconds=0.4, write_seconds=0.4, keep_alive_seconds=1)
Address = tuple[str, int]


def build_request(*headers: str, **changes: object) -> bytes:
    """Return a chat's head and body; a header is a line."""
    body = json.dumps({**ASK, **changes}).encode()
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        "Host: 127.0.0.1",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def read_all(connection: socket.socket) -> bytes:
    """Return what the gateway sends until it closes the connection."""
    pieces = []
    try:
        while piece := connection.recv(2**16):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def ask(address: Address, sent: bytes) -> bytes:
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(sent)
        return read_all(connection)


@contextmanager
def serve_short(replica: StandIn, limits: HttpLimits = SHORT) -> Iterator[Address]:
    """A gateway with short deadlines before `replica`."""
    with serving(replica) as url, gateway(RouteSource(route(url)), limits=limits) as client:
        yield client.base_url.host, client.base_url.port or 0


@contextmanager
def run_gateway(folder: Path, replica_url: str, *, files: int) -> Iterator[Address]:
    """`learnd gateway` as a process that may open so many files, without a daemon."""
    port = find_free_port()
    config = folder / "learnd.toml"
    target = {
        "tenant": "acme",
        "agent": "routing",
        "project": "p",
        "task": "generation",
        "base_model": "none",
    }
    config.write_text(
        tomli_w.dumps(
            {
                "data_dir": "data",
                "gateway": {"port": port, "trace": False},
                "replicas": [{"name": "local", "url": replica_url, "base_name": "base"}],
                "targets": [target],
            }
        ),
        "utf-8",
    )
    known = RouteFile(folder / "data" / "gateway")
    known.prepare()
    known.write(GatewayRoutes(routes={"acme/routing": TargetRoute(version=None)}))
    start = f'ulimit -n {files} && exec "$@"'
    command = ["sh", "-c", start, "sh", sys.executable, "-m", "learnd", "gateway", "--config", str(config)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            wait_until(lambda: _is_up(port), 60, "the gateway to start")
            yield "127.0.0.1", port
        finally:
            process.send_signal(signal.SIGTERM)


def _is_up(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_idle_connections_and_endless_heads_do_not_lock_a_small_gateway(tmp_path: Path) -> None:
    with (
        serving(StandIn()) as url,
        run_gateway(tmp_path, url, files=64) as address,
        ExitStack() as stack,
    ):
        idle = [stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(100)]
        assert ask(address, build_request("Connection: close")).startswith(b"HTTP/1.1 200 ")
        assert read_all(idle[0]) == b""
        endless = stack.enter_context(socket.create_connection(address, timeout=20))
        endless.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ")
        sent = 0
        try:
            while sent < 100 * 2**20:
                sent += endless.send(b"a" * 2**16)
        except (ConnectionResetError, BrokenPipeError):
            pass
        assert sent < 20 * 2**20  # What the sockets' buffers took.
        assert ask(address, build_request("Connection: close")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("stream", [True, False])
def test_a_model_that_thinks_for_longer_than_every_deadline_is_waited_for(stream: bool) -> None:
    replica = StandIn(answer="billing", event_seconds=3 * SHORT.head_seconds)
    with serve_short(replica) as address:
        answer = ask(address, build_request("Connection: close", stream=stream))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"billing" in answer
    assert answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n" if stream else b"}")
    assert replica.aborted == 0


@pytest.mark.parametrize(
    ("begun", "status"),
    [
        (b"", b""),
        (b"POST /v1/chat/completions HT", b"HTTP/1.1 408 "),
        (build_request()[:-5], b"HTTP/1.1 408 "),
    ],
    ids=["nothing", "half a head", "half a body"],
)
def test_a_request_that_does_not_go_on_is_ended(begun: bytes, status: bytes) -> None:
    replica = StandIn()
    with serve_short(replica) as address:
        assert ask(address, begun)[: len(status)] == status
    assert replica.seen == []


def test_an_agent_that_reads_nothing_of_its_stream_is_cut_and_its_replica_freed() -> None:
    event = b'data: {"choices": [], "x": "' + b"a" * 2**16 + b'"}\n\n'
    replica = StandIn(raw=[event] * 400, raw_headers={"content-type": "text/event-stream"})
    with serve_short(replica) as address, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(address)
        connection.sendall(build_request(stream=True))
        wait_until(lambda: replica.aborted == 1, 20, "the replica to be freed")


def test_calls_beside_as_many_as_are_allowed_are_refused_and_cut_none() -> None:
    replica = StandIn(answer="billing", event_seconds=0.5)
    with serve_short(replica, HttpLimits(max_connections=3)) as address, ExitStack() as stack:
        at_work = [stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(3)]
        for connection in at_work:
            connection.sendall(build_request("Connection: close", stream=True))
        for connection in at_work:
            assert connection.recv(9) == b"HTTP/1.1 "
        assert ask(address, b"").startswith(b"HTTP/1.1 503 ")
        for connection in at_work:
            assert read_all(connection).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


EXPECT = "Expect: 100-continue"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def split_request(*headers: str, **changes: object) -> tuple[bytes, bytes]:
    """Return a chat's head and its body."""
    head, end, body = build_request(EXPECT, *headers, **changes).partition(b"\r\n\r\n")
    return head + end, body


def read_answer(connection: socket.socket) -> bytes:
    """Return an answer whose body is JSON, and leave the connection open."""
    answer = b""
    while not answer.endswith(b"}"):
        piece = connection.recv(2**16)
        assert piece, answer
        answer += piece
    return answer


def test_an_agent_that_expects_100_continue_is_told_to_go_on_and_keeps_its_connection() -> None:
    replica = StandIn()
    with (
        serving(replica) as url,
        gateway(RouteSource(route(url))) as client,
        socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=20) as connection,
    ):
        for call in (1, 2):
            head, body = split_request()
            connection.sendall(head)
            assert connection.recv(len(CONTINUE)) == CONTINUE
            assert len(replica.seen) == call - 1
            connection.sendall(body)
            answer = read_answer(connection)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" not in answer
    assert len(replica.seen) == 2


@pytest.mark.parametrize(
    ("authorization", "length", "status"),
    [("Bearer wrong", 100, b"401"), ("Bearer right", 10**9, b"413")],
    ids=["a stranger", "a body that is too large"],
)
def test_a_refused_agent_is_not_asked_for_its_body(authorization: str, length: int, status: bytes) -> None:
    replica = StandIn()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{EXPECT}\r\n"
        f"Authorization: {authorization}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()
    tokens = {"right": "acme"}
    with serving(replica) as url, gateway(RouteSource(route(url)), tokens=tokens) as client:
        address = (client.base_url.host, client.base_url.port or 0)
        with socket.create_connection(address, timeout=20) as connection:
            connection.sendall(head)
            answer = read_all(connection)  # It ends: a next request would be taken for the body.
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"\r\nconnection: close\r\n" in answer
    assert answer.count(b"HTTP/1.1") == 1
    assert replica.seen == []


def test_an_expectation_of_http_1_0_is_ignored() -> None:
    replica = StandIn()
    with serving(replica) as url, gateway(RouteSource(route(url))) as client:
        address = (client.base_url.host, client.base_url.port or 0)
        answer = ask(address, build_request(EXPECT).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert CONTINUE not in answer
