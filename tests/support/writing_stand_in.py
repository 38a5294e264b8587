"""A stand-in for a language model that writes: a real HTTP server with OpenAI's chat completions.

It has no model in it: a function of the request decides the answer, so that a test can say what a weak, a
careless or a broken model would write. It speaks to any client; nothing of ours is patched.
"""

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.openai_stand_in import Message, Receive, Send, serving

ChatBody = dict[str, Any]
Write = Callable[[ChatBody, int], "str | StandInReply"]
"""The request and its number, from 0."""


@dataclass(frozen=True)
class StandInReply:
    """A reply, or a failure."""

    text: str = ""
    finish_reason: str = "stop"
    status: int = 200
    error: str = "this endpoint was told to fail"
    seconds: float = 0.0
    raw: bytes | None = None
    """A body in place of that of OpenAI's protocol."""


@dataclass
class WritingStandIn:
    """One endpoint, with settings and records for the test."""

    write: Write
    key: str | None = None
    """Requests without this key are refused, as OpenAI and vLLM do."""
    seconds: float = 0.0
    """How long each answer takes."""
    seen: list[ChatBody] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.paths.append(scope["path"])
        request = json.loads(await _read_body(receive))
        headers = {key.decode(): value.decode() for key, value in scope["headers"]}
        self.seen.append(request)
        self.headers.append(headers)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            answer = self._answer(request, headers)
            await asyncio.sleep(self.seconds + answer.seconds)
            await _send(send, answer, request)
        finally:
            self.at_once -= 1

    def _answer(self, request: ChatBody, headers: dict[str, str]) -> StandInReply:
        if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
            key = headers.get("authorization", "").removeprefix("Bearer ")
            return StandInReply(status=401, error=f"Incorrect API key provided: {key}.")
        answer = self.write(request, next(self._numbers))
        return answer if isinstance(answer, StandInReply) else StandInReply(text=answer)


@contextmanager
def writing(stand_in: WritingStandIn) -> Iterator[str]:
    """Serve it; gives the base URL that OpenAI's clients take."""
    with serving(stand_in) as url:
        yield f"{url}/v1"


async def _read_body(receive: Receive) -> bytes:
    body = b""
    while True:
        message: Message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def _send(send: Send, answer: StandInReply, request: ChatBody) -> None:
    content: Any
    if answer.status != 200:
        content = {"error": {"message": answer.error, "type": "error", "param": None, "code": None}}
    else:
        message = {"role": "assistant", "content": answer.text}
        content = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": request["model"],
            "choices": [{"index": 0, "finish_reason": answer.finish_reason, "message": message}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
        }
    body = json.dumps(content).encode() if answer.raw is None else answer.raw
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
