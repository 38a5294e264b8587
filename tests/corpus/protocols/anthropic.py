"""Anthropic's messages: https://docs.anthropic.com/en/api/messages"""

import json
from collections.abc import Iterator
from typing import Any

from tests.corpus.protocols.protocol import Protocol, Question, Request, split, write_event
from tests.corpus.said import OfferedTool, SaidAnswer, SaidCall, SaidMessage


def read_request(path: str, body: dict[str, Any]) -> Request:  # noqa: ARG001
    system = body.get("system") or ()
    text = system if isinstance(system, str) else "\n".join(part["text"] for part in system)
    messages = [said for message in body["messages"] for said in _read_message(message)]
    return Request(
        messages=(*((SaidMessage("system", text),) if text else ()), *messages),
        tools=tuple(
            OfferedTool(tool["name"], tool.get("description"), tool["input_schema"])
            for tool in body.get("tools") or ()
        ),
        streamed=bool(body.get("stream")),
    )


def _read_message(message: dict[str, Any]) -> Iterator[SaidMessage]:
    """Results of tools stand in the user's message, before what the user says."""
    blocks = message["content"]
    blocks = [{"type": "text", "text": blocks}] if isinstance(blocks, str) else blocks
    for block in blocks:
        if block["type"] == "tool_result":
            given = block["content"]
            text = given if isinstance(given, str) else "\n".join(part["text"] for part in given)
            yield SaidMessage("tool", text, answers=block["tool_use_id"])
    others = [block for block in blocks if block["type"] not in ("tool_result", "thinking")]
    texts = [block["text"] for block in others if block["type"] == "text"]
    calls = tuple(
        SaidCall(block["name"], block["input"], block["id"])
        for block in others
        if block["type"] == "tool_use"
    )
    images = sum(block["type"] == "image" for block in others)
    if len(texts) + len(calls) + images != len(others):
        raise ValueError(f"the stand-in does not know a block of {message}")
    if others:
        joined = ("" if message["role"] == "assistant" else "\n").join(texts)
        yield SaidMessage(message["role"], joined, calls, images=images)


def write_answer(question: Question) -> dict[str, Any]:
    answer = question.answer
    return {
        "id": f"msg_{question.id}",
        "type": "message",
        "role": "assistant",
        "model": "harbour-large",
        "content": list(_write_blocks(answer)),
        "stop_reason": "max_tokens" if answer.cut_off else "tool_use" if answer.calls else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": question.request.count_tokens(), "output_tokens": answer.count_tokens()},
    }


def _write_blocks(answer: SaidAnswer) -> Iterator[dict[str, Any]]:
    if answer.thoughts:
        yield {"type": "thinking", "thinking": answer.thoughts, "signature": "c2lnbmVk"}
    if answer.text:
        yield {"type": "text", "text": answer.text}
    for call in answer.calls:
        yield {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}


def write_events(question: Question) -> Iterator[bytes]:
    whole = write_answer(question)
    begun = {**whole, "content": [], "stop_reason": None, "usage": {**whole["usage"], "output_tokens": 1}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": begun}]
    for index, block in enumerate(whole["content"]):
        empty, deltas = _split_block(block)
        events.append({"type": "content_block_start", "index": index, "content_block": empty})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    ended = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    events.append(
        {"type": "message_delta", "delta": ended, "usage": {"output_tokens": question.count_answered()}}
    )
    events.append({"type": "message_stop"})
    yield from (write_event(event, event["type"]) for event in events)


def _split_block(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    if block["type"] == "text":
        deltas = [{"type": "text_delta", "text": piece} for piece in split(block["text"])]
        return {**block, "text": ""}, deltas
    if block["type"] == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in split(block["thinking"])]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
        return {**block, "thinking": "", "signature": ""}, deltas
    written = json.dumps(block["input"], ensure_ascii=False)
    return {**block, "input": {}}, [
        {"type": "input_json_delta", "partial_json": piece} for piece in split(written)
    ]


def write_error(status: int) -> dict[str, Any]:
    message = f"The stand-in was told to fail with {status}."
    return {"type": "error", "error": {"type": "invalid_request_error", "message": message}}


PROTOCOL = Protocol(r"/v1/messages", read_request, write_answer, write_events, write_error)
