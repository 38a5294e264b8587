"""Answers of a real vLLM 0.32 over each API; `tests.e2e.record_vllm` records it anew."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from daemon.gateway.replies import read_body
from extractors.values import Value

FILE = Path(__file__).with_name("recordings") / "vllm.json"


class Recording(Value):
    """One request to vLLM, and its answer."""

    name: str
    """The conversation, such as `tides`."""
    api: str
    """`chat`, `responses` or `messages`."""
    stream: bool
    path: str
    request: dict[str, Any]
    status: int
    content_type: str
    body: str


@cache
def read_recordings() -> tuple[Recording, ...]:
    return tuple(Recording.model_validate(each) for each in json.loads(FILE.read_text("utf-8")))


def find_recording(name: str, api: str, *, stream: bool = False) -> Recording:
    """Return the recording of that name."""
    return next(
        each for each in read_recordings() if (each.name, each.api, each.stream) == (name, api, stream)
    )


class Replay:
    """A stand-in for vLLM: a server that answers each request as vLLM answered when it was recorded."""

    PIECE = 100
    """Bytes that are sent at once."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.seen: list[dict[str, Any]] = []
        """Bodies of the requests, in the order of arrival."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = await read_body(scope, receive, limit=2**30)
        self.seen.append(json.loads(body))
        assert scope["path"] == self.recording.path
        headers = [(b"content-type", self.recording.content_type.encode())]
        await send({"type": "http.response.start", "status": self.recording.status, "headers": headers})
        answer = self.recording.body.encode()
        for start in range(0, len(answer), self.PIECE):
            piece = answer[start : start + self.PIECE]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
