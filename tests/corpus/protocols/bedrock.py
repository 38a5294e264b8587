"""Amazon Bedrock's Converse: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html

Streams are frames of `application/vnd.amazon.eventstream`.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from tests.corpus.protocols.protocol import Protocol, Question, Request, split
from tests.corpus.said import OfferedTool, SaidAnswer, SaidCall, SaidMessage


def read_request(path: str, body: dict[str, Any]) -> Request:
    system = "\n".join(part["text"] for part in body.get("system") or ())
    messages = [said for message in body["messages"] for said in _read_message(message)]
    specified = [tool["toolSpec"] for tool in (body.get("toolConfig") or {}).get("tools", ())]
    return Request(
        messages=(*((SaidMessage("system", system),) if system else ()), *messages),
        tools=tuple(
            OfferedTool(each["name"], each.get("description"), each["inputSchema"]["json"])
            for each in specified
        ),
        streamed=path.endswith("stream"),
    )


def _read_message(message: dict[str, Any]) -> Iterator[SaidMessage]:
    blocks = message["content"]
    for block in blocks:
        if result := block.get("toolResult"):
            text = "\n".join(part["text"] for part in result["content"])
            yield SaidMessage("tool", text, answers=result["toolUseId"])
    others = [block for block in blocks if "toolResult" not in block]
    texts = [block["text"] for block in others if "text" in block]
    uses = [block["toolUse"] for block in others if "toolUse" in block]
    calls = tuple(SaidCall(use["name"], use["input"], use["toolUseId"]) for use in uses)
    images = sum("image" in block for block in others)
    if len(texts) + len(calls) + images != len(others):
        raise ValueError(f"the stand-in does not know a block of {message}")
    if others:
        joined = ("" if message["role"] == "assistant" else "\n").join(texts)
        yield SaidMessage(message["role"], joined, calls, images=images)


def write_answer(question: Question) -> dict[str, Any]:
    answer = question.answer
    content: list[dict[str, Any]] = [{"text": answer.text}] if answer.text else []
    content += [
        {"toolUse": {"toolUseId": call.id, "name": call.name, "input": call.arguments}}
        for call in answer.calls
    ]
    return {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": _write_end(answer),
        "usage": _write_usage(question),
        "metrics": {"latencyMs": 1},
    }


def _write_end(answer: SaidAnswer) -> str:
    return "max_tokens" if answer.cut_off else "tool_use" if answer.calls else "end_turn"


def _write_usage(question: Question) -> dict[str, int]:
    asked, answered = question.request.count_tokens(), question.count_answered()
    return {"inputTokens": asked, "outputTokens": answered, "totalTokens": asked + answered}


def write_events(question: Question) -> Iterator[bytes]:
    answer = question.answer
    yield _write_frame("messageStart", {"role": "assistant"})
    index = 0
    if answer.text:
        for piece in split(answer.text):
            yield _write_frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": piece}})
        yield _write_frame("contentBlockStop", {"contentBlockIndex": 0})
        index = 1
    for number, call in enumerate(answer.calls, index):
        start = {"toolUse": {"toolUseId": call.id, "name": call.name}}
        yield _write_frame("contentBlockStart", {"contentBlockIndex": number, "start": start})
        for piece in split(json.dumps(call.arguments, ensure_ascii=False)):
            delta = {"toolUse": {"input": piece}}
            yield _write_frame("contentBlockDelta", {"contentBlockIndex": number, "delta": delta})
        yield _write_frame("contentBlockStop", {"contentBlockIndex": number})
    yield _write_frame("messageStop", {"stopReason": _write_end(answer)})
    yield _write_frame("metadata", {"usage": _write_usage(question), "metrics": {"latencyMs": 1}})


def _write_frame(kind: str, payload: dict[str, Any]) -> bytes:
    """Lengths and checksum, headers, payload, checksum."""
    headers = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in (
            (":event-type", kind),
            (":content-type", "application/json"),
            (":message-type", "event"),
        )
    )
    body = json.dumps(payload, ensure_ascii=False).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    frame = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + body
    return frame + struct.pack(">I", zlib.crc32(frame))


def write_error(status: int) -> dict[str, Any]:
    return {"message": f"The stand-in was told to fail with {status}."}


PROTOCOL = Protocol(
    r"/model/[^/]+/converse(-stream)?",
    read_request,
    write_answer,
    write_events,
    write_error,
    stream_type="application/vnd.amazon.eventstream",
)
