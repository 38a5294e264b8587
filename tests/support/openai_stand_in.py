"""A stand-in for a vLLM replica: a real HTTP server that speaks OpenAI's protocol, streams included.

It generates nothing: the answer to a chat is `answer` word by word. It serves tests of the parts in front
of a replica, where a test must see each request and decide how the replica fails.
"""

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from daemon.demo.servers import find_free_port

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]

TOOL_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "transfer", "arguments": '{"to": "billing"}'},
}


@dataclass
class StandIn:
    """One replica, with settings and records for the test."""

    models: set[str] = field(default_factory=lambda: {"base"})
    """Names that it serves; it says 404 for others, as vLLM does."""
    answer: str = "the billing team"
    status: int = 200
    """Another status makes each completion fail with it."""
    event_seconds: float = 0.0
    """Pause before each event of a stream, and before an answer in one piece."""
    events_before_break: int | None = None
    """Hang up in the middle of a stream, after so many events; or of an answer in one piece."""
    raw: list[bytes] | None = None
    """Pieces of a body to answer each completion with, as they go over the wire."""
    raw_headers: dict[str, str] = field(default_factory=dict)
    """Headers of such an answer."""
    raw_status: int = 200
    seen: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of the completions, in the order of arrival."""
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    aborted: int = 0
    """Completions whose client hung up before the end."""

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.paths.append(scope["path"])
        body = await _read_body(receive)
        if scope["method"] != "POST":
            await _send_json(send, 200, {"object": "list", "data": [{"id": model} for model in self.models]})
            return
        request = json.loads(body)
        self.seen.append(request)
        self.headers.append({key.decode(): value.decode() for key, value in scope["headers"]})
        if request["model"] not in self.models:
            await _send_json(send, 404, _build_error(f"The model `{request['model']}` does not exist."))
        elif self.status != 200:
            await _send_json(send, self.status, _build_error("this replica was told to fail"))
        else:
            await self._complete(request, receive, send)

    async def _complete(self, request: dict[str, Any], receive: Receive, send: Send) -> None:
        answering = asyncio.ensure_future(self._answer(request, send))
        leaving = asyncio.ensure_future(_wait_for_hang_up(receive))
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            self.aborted += 1
            answering.cancel()
        leaving.cancel()
        await asyncio.wait({answering, leaving})
        if not answering.cancelled():
            answering.result()

    def answer_with(self, *chunks: Any, done: bool = True) -> None:
        """Stream these chunks as the answer to each completion, and `[DONE]` unless told otherwise."""
        events = [json.dumps(chunk) for chunk in chunks] + ["[DONE]"] * done
        self.raw = [f"data: {event}\n\n".encode() for event in events]
        self.raw_headers = {"content-type": "text/event-stream"}

    def answer_whole(self, body: Any) -> None:
        """Answer each completion with this JSON, in one piece."""
        self.raw = [json.dumps(body).encode()]
        self.raw_headers = {"content-type": "application/json"}

    async def _answer(self, request: dict[str, Any], send: Send) -> None:
        if self.raw is not None:
            await self._send_raw(send, self.raw)
            return
        if request.get("stream"):
            await self._stream(request, send)
            return
        await asyncio.sleep(self.event_seconds)
        if self.events_before_break is not None:
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"99")]}
            )
            raise ConnectionAbortedError("this replica was told to break off")
        message: dict[str, Any] = {"role": "assistant", "content": self.answer}
        if request.get("tools"):
            message["tool_calls"] = [TOOL_CALL]
        said = {"message": message} if "messages" in request else {"text": self.answer}
        choice = {"index": 0, "finish_reason": "stop", **said}
        await _send_json(send, 200, {**_build_head(request), "choices": [choice], "usage": self._usage()})

    async def _send_raw(self, send: Send, pieces: list[bytes]) -> None:
        headers = [(name.encode(), value.encode()) for name, value in self.raw_headers.items()]
        await send({"type": "http.response.start", "status": self.raw_status, "headers": headers})
        for piece in pieces:
            await asyncio.sleep(self.event_seconds)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _stream(self, request: dict[str, Any], send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number, event in enumerate(self._events(request)):
            await asyncio.sleep(self.event_seconds)
            if number == self.events_before_break:
                raise ConnectionAbortedError("this replica was told to break off")
            await send(
                {"type": "http.response.body", "body": f"data: {event}\n\n".encode(), "more_body": True}
            )
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _events(self, request: dict[str, Any]) -> Iterator[str]:
        head = {**_build_head(request), "object": "chat.completion.chunk"}
        for delta in self._deltas(request):
            choice: dict[str, Any] = {"index": 0, "finish_reason": None}
            choice |= {"delta": delta} if "messages" in request else {"text": delta.get("content", "")}
            yield json.dumps({**head, "choices": [choice]})
        last = {"delta": {}} if "messages" in request else {"text": ""}
        yield json.dumps({**head, "choices": [{"index": 0, "finish_reason": "stop", **last}]})
        if request.get("stream_options", {}).get("include_usage"):
            yield json.dumps({**head, "choices": [], "usage": self._usage()})
        yield "[DONE]"

    def _deltas(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield {"role": "assistant", "content": ""}
        for word in self.answer.split(" "):
            yield {"content": word if word == self.answer.split(" ")[0] else f" {word}"}
        if request.get("tools"):
            arguments = TOOL_CALL["function"]["arguments"]
            yield {
                "tool_calls": [{"index": 0, **TOOL_CALL, "function": {"name": "transfer", "arguments": ""}}]
            }
            for letter in arguments:
                yield {"tool_calls": [{"index": 0, "function": {"arguments": letter}}]}

    def _usage(self) -> dict[str, int]:
        return {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


@contextmanager
def serving(app: App, port: int | None = None) -> Iterator[str]:
    """Serve an ASGI application from a thread until the block ends; gives its base URL."""
    port = port or find_free_port()
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        log_level="critical",
        ws="none",
        timeout_graceful_shutdown=5,
        proxy_headers=False,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server ended while it started"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def _build_head(request: dict[str, Any]) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": request["model"]}


def _build_error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


async def _read_body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def _wait_for_hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_json(send: Send, status: int, content: Any) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(content).encode(), "more_body": False})
