"""Servers behind the gateways that are compared: a replica and a receiver of traces, each a process.

Both are stand-ins that answer at once, so that the time of a call is the gateway's:
`replica` speaks OpenAI's chat completions, and `traces` takes spans over OTLP and counts them.
"""

import asyncio
import json
from functools import cache
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.openai_stand_in import Receive, Send

HEAD = {"id": "chatcmpl-7", "created": 1_780_000_000, "model": "base"}
CHOICE = {
    "index": 0,
    "message": {"role": "assistant", "content": "the billing team"},
    "finish_reason": "stop",
}
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
WHOLE = json.dumps({**HEAD, "object": "chat.completion", "choices": [CHOICE], "usage": USAGE}).encode()
received = 0
"""Spans that `traces` was given."""


async def replica(scope: Any, receive: Receive, send: Send) -> None:
    """Answer a chat whole, or with a stream of `max_tokens` words, which are sent one by one at once."""
    if scope["type"] != "http":
        return
    body = await _read(receive)
    if b'"stream":true' not in body.replace(b" ", b""):
        await _send(send, WHOLE, b"application/json")
        return
    head = {"type": "http.response.start", "status": 200}
    await send({**head, "headers": [(b"content-type", b"text/event-stream; charset=utf-8")]})
    for event in _list_events(json.loads(body)["max_tokens"]):
        await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"data: " + event + b"\n\n", "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def traces(scope: Any, receive: Receive, send: Send) -> None:
    """Take spans; answer GET with their number so far."""
    global received
    if scope["type"] != "http":
        return
    body = await _read(receive)
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        received += sum(len(scoped.spans) for scoped in resource.scope_spans)
    await _send(send, str(received).encode(), b"text/plain")


@cache
def _list_events(words: int) -> list[bytes]:
    head = {**HEAD, "object": "chat.completion.chunk"}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": f" word{number}"} for number in range(words)]
    chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    chunks.append({**head, "choices": [], "usage": USAGE})
    return [*(json.dumps(chunk).encode() for chunk in chunks), b"[DONE]"]


async def _read(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _send(send: Send, body: bytes, kind: bytes) -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
