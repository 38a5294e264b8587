"""The gateway's connections to replicas: who thinks is not cut, who is gone is noticed."""

import asyncio
import socket

import pytest

from daemon.gateway.upstream import KEEP_ALIVE, open_session
from tests.support.gateway import ASK, RouteSource, gateway, route
from tests.support.openai_stand_in import StandIn, serving
from tests.support.slow_peer import SlowPeer, serve_slowly

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: {}\n\n"


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="options of Linux")
async def test_a_connection_to_a_replica_asks_whether_its_machine_is_there() -> None:
    with serve_slowly(SlowPeer(ANSWER, b"")) as peer:
        async with open_session() as session, session.get(peer.url) as answer:
            assert answer.connection is not None
            assert answer.connection.transport is not None
            opened = answer.connection.transport.get_extra_info("socket")
            assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            for option, value in KEEP_ALIVE.items():
                assert opened.getsockopt(socket.IPPROTO_TCP, getattr(socket, option)) == value


async def test_no_deadline_ends_the_silence_of_a_replica() -> None:
    with serve_slowly(SlowPeer(ANSWER, b"")) as peer:
        async with open_session() as session:
            timeout = session.timeout
            assert (timeout.total, timeout.sock_read) == (None, None)
            async with session.get(peer.url) as answer:
                assert await answer.content.readany() == b"data: {}\n\n"
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(answer.content.readany(), 1)


@pytest.mark.parametrize("status", [b"101 Switching Protocols", b"302 Found", b"600 Odd", b"999 Odd"])
def test_a_status_that_is_no_answer_is_passed_over(status: bytes) -> None:
    head = b"HTTP/1.1 " + status + b"\r\nUpgrade: x\r\nConnection: upgrade\r\nLocation: /\r\n"
    body = b'{"choices": []}'
    answer = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with serve_slowly(SlowPeer(answer, b"")) as odd, serving(StandIn()) as sound:
        with gateway(RouteSource(route(odd.url))) as client:
            alone = client.post("/v1/chat/completions", json=ASK)
            assert (alone.status_code, alone.json()["error"]["code"]) == (503, "no_replica")
        with gateway(RouteSource(route(odd.url, sound))) as client:
            assert client.post("/v1/chat/completions", json=ASK).status_code == 200
