"""A peer that answers byte by byte, or without an end: what no deadline for a single read notices."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

PAUSE_SECONDS = 0.05
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@dataclass
class SlowPeer:
    """A server of one answer, whatever it is asked."""

    begin: bytes
    """Sent at once."""
    piece: bytes
    """Sent again and again."""
    pause: float = PAUSE_SECONDS
    url: str = ""
    connected: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)
    """A client has closed its connection."""
    stop: threading.Event = field(default_factory=threading.Event)

    def answer(self, connection: socket.socket) -> None:
        """Send until the client leaves or the test ends."""
        with connection:
            try:
                connection.recv(2**16)
                self.connected.set()
                connection.sendall(self.begin)
                while not self.stop.wait(self.pause):
                    connection.sendall(self.piece)
            except OSError:
                self.left.set()


def build_dripping_head() -> SlowPeer:
    """Return a peer that sends its head byte by byte."""
    return SlowPeer(HEAD + b"X-Slow: ", b"a")


def build_dripping_body() -> SlowPeer:
    """Return a peer that sends its body byte by byte."""
    return SlowPeer(HEAD + b"Content-Length: 1000000000\r\n\r\n", b" ")


def build_endless_body() -> SlowPeer:
    """Return a peer that sends its body as fast as it is read, and never ends."""
    return SlowPeer(HEAD + b"Content-Length: 100000000000\r\n\r\n", b" " * 2**20, pause=0)


@contextmanager
def serve_slowly(peer: SlowPeer) -> Iterator[SlowPeer]:
    """Let the peer listen on this machine; its `url` says where."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.1)
        peer.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        threads: list[threading.Thread] = []

        def accept() -> None:
            while not peer.stop.is_set():
                try:
                    connection, _ = listening.accept()
                except TimeoutError:
                    continue
                connection.settimeout(20)
                threads.append(threading.Thread(target=peer.answer, args=(connection,)))
                threads[-1].start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield peer
        finally:
            peer.stop.set()
            for thread in [accepting, *threads]:
                thread.join()
