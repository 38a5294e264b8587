"""Clients that hold connections, heads and bodies, against the server of daemon and gateway."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from websockets.sync.client import connect

from daemon.runtime.http_server import HttpLimits, build_server
from daemon.runtime.listening import open_socket
from tests.support.phoenix import wait_until

SHORT = HttpLimits(head_seconds=0.4, body_seconds=0.4, write_seconds=0.4, keep_alive_seconds=1)
Address = tuple[str, int]


async def app(scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    """Answer `/silent` after a silence longer than all deadlines, `/large` with 64 MB, else the size."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await asyncio.sleep(3 * SHORT.head_seconds)
        await send({"type": "websocket.send", "text": "late"})
        await receive()
        return
    size, more = 0, scope["path"] != "/refused"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/silent":
        await send({"type": "http.response.body", "body": b"first ", "more_body": True})
        await asyncio.sleep(3 * SHORT.head_seconds)
    if scope["path"] == "/large":
        for _ in range(64):
            await send({"type": "http.response.body", "body": bytes(2**20), "more_body": True})
    await send({"type": "http.response.body", "body": b"last %d" % size})


@contextmanager
def serve(limits: HttpLimits) -> Iterator[Address]:
    with open_socket("127.0.0.1", 0, "port") as listening:
        server = build_server(app, grace_seconds=1, websockets=True, limits=limits)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        wait_until(lambda: server.started, 20, "the server to start")
        try:
            yield listening.getsockname()
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def short() -> Iterator[Address]:
    with serve(SHORT) as address:
        yield address


def read_all(connection: socket.socket) -> bytes:
    """Return what the server sends until it closes the connection."""
    pieces = []
    try:
        while piece := connection.recv(2**16):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def ask(address: Address, *pieces: bytes) -> bytes:
    with socket.create_connection(address, timeout=20) as connection:
        for piece in pieces:
            connection.sendall(piece)
        return read_all(connection)


def test_a_head_that_never_ends_is_refused_before_much_of_it_is_kept(short: Address) -> None:
    with socket.create_connection(short, timeout=20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ")
        sent = 0
        try:
            while sent < 100 * 2**20:
                sent += connection.send(b"a" * 2**16)
        except (ConnectionResetError, BrokenPipeError):
            pass
    assert sent < 20 * 2**20  # What the sockets' buffers took.


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 5\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ],
    ids=["length", "chunked"],
)
def test_a_request_that_asks_for_another_protocol_is_answered_in_this_one(
    short: Address, body: bytes
) -> None:
    """Java's client sends this with its first request on plain HTTP."""
    request = b"POST / HTTP/1.1\r\nHost: x\r\n" + UPGRADE + body
    cuts = (len(request), 30, len(request) - len(body), len(request) - 3)
    for cut in cuts:
        answer = ask(short, request[:cut], request[cut:] + LAST)
        assert answer.count(b"200 OK") == 2, answer
        assert b"last 5" in answer
        assert b"last 0" in answer


def test_a_tunnel_is_not_opened(short: Address) -> None:
    assert b"200 OK" not in ask(short, b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 40_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:\r\n" * 10_000 + b"\r\n",
    ],
    ids=["one header", "the path", "many headers"],
)
def test_a_whole_head_that_is_too_long_is_refused(short: Address, head: bytes) -> None:
    assert ask(short, head).startswith(b"HTTP/1.1 431 ")


def test_a_head_of_ordinary_length_is_read_in_pieces(short: Address) -> None:
    head = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Long: " + b"a" * 20_000
    assert ask(short, head, b"\r\n", b"\r\n").endswith(b"last 0\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    ("begun", "status"),
    [
        (b"", b""),
        (b"\r\n", b"HTTP/1.1 408 "),
        (b"GET / HTTP/1.1\r\nHost:", b"HTTP/1.1 408 "),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf", b"HTTP/1.1 408 "),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"HTTP/1.1 408 "),
        (b"POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf", b"HTTP/1.1 200 "),
    ],
    ids=["nothing", "an empty line", "half a head", "half a body", "a chunk", "half a body, answered"],
)
def test_a_connection_that_does_not_go_on_is_closed(short: Address, begun: bytes, status: bytes) -> None:
    assert ask(short, begun)[: len(status)] == status


def test_a_byte_now_and_then_does_not_hold_a_connection(short: Address) -> None:
    with socket.create_connection(short, timeout=20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
        stop = threading.Event()

        def drip() -> None:
            while not stop.wait(0.05):
                try:
                    connection.sendall(b"a")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            read_all(connection)  # It ends.
        finally:
            stop.set()
            thread.join()


def test_a_second_head_that_does_not_go_on_is_closed(short: Address) -> None:
    whole = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    answers = ask(short, whole + b"GET / HT")
    assert answers.count(b"HTTP/1.1 200") == 1
    assert answers.count(b"HTTP/1.1 408") == 1


def test_a_stream_that_is_silent_for_long_is_not_cut(short: Address) -> None:
    answer = ask(
        short, b"POST /silent HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab"
    )
    assert b"first" in answer
    assert answer.endswith(b"last 2\r\n0\r\n\r\n")


def test_a_silent_stream_with_half_a_request_behind_it_is_not_cut(short: Address) -> None:
    answer = ask(short, b"GET /silent HTTP/1.1\r\nHost: x\r\n\r\nGET / HT")
    assert b"last 0" in answer


def test_a_web_socket_that_is_silent_for_long_is_not_cut(short: Address) -> None:
    with connect(f"ws://127.0.0.1:{short[1]}/") as opened:
        assert opened.recv() == "late"


def test_a_web_socket_may_expect_100_continue(short: Address) -> None:
    head = (
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nExpect: 100-continue\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with socket.create_connection(short, timeout=20) as connection:
        connection.sendall(head)
        assert connection.recv(13) == b"HTTP/1.1 101 "


def test_a_client_that_reads_nothing_of_a_response_is_cut(short: Address) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        connection.connect(short)
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        threading.Event().wait(4 * SHORT.write_seconds)
        assert len(read_all(connection)) < 60 * 2**20


def test_idle_connections_give_way_and_working_ones_do_not() -> None:
    limits = HttpLimits(max_connections=20)
    with serve(limits) as address, ExitStack() as stack:
        at_work = stack.enter_context(socket.create_connection(address, timeout=20))
        at_work.sendall(b"GET /silent HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert at_work.recv(100)
        idle = [stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(100)]
        request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert ask(address, request).startswith(b"HTTP/1.1 200 ")
        assert read_all(at_work).endswith(b"last 0\r\n0\r\n\r\n")
        assert read_all(idle[0]) == b""


def test_a_connection_beside_as_many_working_ones_as_are_allowed_is_refused() -> None:
    with serve(HttpLimits(max_connections=3)) as address, ExitStack() as stack:
        for _ in range(3):
            at_work = stack.enter_context(socket.create_connection(address, timeout=20))
            at_work.sendall(b"GET /silent HTTP/1.1\r\nHost: x\r\n\r\n")
            assert at_work.recv(100)
        assert ask(address).startswith(b"HTTP/1.1 503 ")
