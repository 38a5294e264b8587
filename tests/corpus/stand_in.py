"""A stand-in for the model's provider: a local HTTP server that speaks the providers' documented protocols.

It generates nothing: the script says what it answers. It writes down each request that it got and what it
answered, in neutral words: that is the truth that recordings are compared with.
"""

import json
import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.corpus.protocols import PROTOCOLS
from tests.corpus.protocols.protocol import Question
from tests.corpus.said import SaidAnswer, ServedCall
from tests.corpus.script import ANSWERS


class StandIn(ThreadingHTTPServer):
    """The provider. `expect` says which situations come next; `served` is what was said."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.served: list[ServedCall] = []
        self._expected: deque[str] = deque()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def expect(self, *situations: str) -> None:
        """The next requests are these situations of the script, in order."""
        if self._expected:
            raise RuntimeError(f"the agent has not asked for {list(self._expected)}")
        self._expected.extend(situations)

    def take(self) -> tuple[str, tuple[SaidAnswer, ...]]:
        """Return the situation of the request that came, and its answers."""
        situation = self._expected.popleft()
        return situation, ANSWERS[situation]


class _Handler(BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        received_at = time.time_ns()
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        path = self.path.partition("?")[0].replace("%3A", ":")
        protocol = next(each for each in PROTOCOLS if re.fullmatch(each.path, path))
        request = protocol.read_request(path, body)
        situation, answers = self.server.take()
        self.server.served.append(
            ServedCall(situation, received_at, request.streamed, request.messages, request.tools, answers)
        )
        question = Question(f"harbour{len(self.server.served):03}", body, request, answers)
        if answers[0].error:
            self._send(answers[0].error, "application/json", [_dump(protocol.write_error(answers[0].error))])
        elif request.streamed:
            self._send(200, protocol.stream_type, list(protocol.write_events(question)))
        else:
            self._send(200, "application/json", [_dump(protocol.write_answer(question))])

    def _send(self, status: int, content_type: str, pieces: list[bytes]) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(sum(len(piece) for piece in pieces)))
        self.end_headers()
        for piece in pieces:
            self.wfile.write(piece)
            self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing: the program shows what was recorded."""


def _dump(body: dict[str, object]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()


@contextmanager
def run_stand_in() -> Iterator[StandIn]:
    """A stand-in that serves while the block runs."""
    stand_in = StandIn()
    thread = threading.Thread(target=stand_in.serve_forever, daemon=True)
    thread.start()
    try:
        yield stand_in
    finally:
        stand_in.shutdown()
        stand_in.server_close()
        thread.join()
