"""Gemini's generateContent: https://ai.google.dev/api/generate-content"""

import json
from collections.abc import Iterator
from typing import Any

from tests.corpus.protocols.protocol import Protocol, Question, Request, split, write_event
from tests.corpus.said import OfferedTool, SaidAnswer, SaidCall, SaidMessage


def read_request(path: str, body: dict[str, Any]) -> Request:
    system = "\n".join(part["text"] for part in (body.get("systemInstruction") or {}).get("parts", ()))
    messages = [said for content in body["contents"] for said in _read_content(content)]
    declared = [each for tool in body.get("tools") or () for each in tool["functionDeclarations"]]
    return Request(
        messages=(*((SaidMessage("system", system),) if system else ()), *messages),
        tools=tuple(
            OfferedTool(each["name"], each.get("description"), _find_parameters(each)) for each in declared
        ),
        streamed="stream" in path,
    )


def _find_parameters(declared: dict[str, Any]) -> Any:
    """The schema: protobuf's JSON may name the field in either way."""
    names = ("parametersJsonSchema", "parameters_json_schema", "parameters")
    return next(declared[name] for name in names if name in declared)


def _read_content(content: dict[str, Any]) -> Iterator[SaidMessage]:
    parts = content["parts"]
    for part in parts:
        if "functionResponse" in part:
            yield SaidMessage("tool", json.dumps(part["functionResponse"]["response"], ensure_ascii=False))
    others = [part for part in parts if "functionResponse" not in part and not part.get("thought")]
    texts = [part["text"] for part in others if "text" in part]
    calls = tuple(
        SaidCall(part["functionCall"]["name"], part["functionCall"]["args"])
        for part in others
        if "functionCall" in part
    )
    images = sum("inlineData" in part for part in others)
    if len(texts) + len(calls) + images != len(others):
        raise ValueError(f"the stand-in does not know a part of {content}")
    if others:
        role = {"model": "assistant"}.get(content["role"], content["role"])
        yield SaidMessage(role, ("" if role == "assistant" else "\n").join(texts), calls, images=images)


def write_answer(question: Question) -> dict[str, Any]:
    return _write_response(
        question, [(list(_write_parts(answer)), _write_end(answer)) for answer in question.answers]
    )


def _write_end(answer: SaidAnswer) -> str:
    return "MAX_TOKENS" if answer.cut_off else "STOP"


def _write_response(question: Question, candidates: list[tuple[list[Any], str | None]]) -> dict[str, Any]:
    asked, answered = question.request.count_tokens(), question.count_answered()
    return {
        "responseId": question.id,
        "modelVersion": "harbour-large",
        "usageMetadata": {
            "promptTokenCount": asked,
            "candidatesTokenCount": answered,
            "totalTokenCount": asked + answered,
        },
        "candidates": [
            {
                "index": index,
                "content": {"role": "model", "parts": parts},
                **({"finishReason": end} if end else {}),
            }
            for index, (parts, end) in enumerate(candidates)
        ],
    }


def _write_parts(answer: SaidAnswer) -> Iterator[dict[str, Any]]:
    if answer.thoughts:
        yield {"text": answer.thoughts, "thought": True}
    if answer.text:
        yield {"text": answer.text}
    for call in answer.calls:
        yield {"functionCall": {"name": call.name, "args": call.arguments}}


def write_events(question: Question) -> Iterator[bytes]:
    answer = question.answer
    pieces = [{"text": piece} for piece in split(answer.text)]
    pieces += [part for part in _write_parts(answer) if "functionCall" in part]
    for number, part in enumerate(pieces, 1):
        end = _write_end(answer) if number == len(pieces) else None
        yield write_event(_write_response(question, [([part], end)]))


def write_error(status: int) -> dict[str, Any]:
    message = f"The stand-in was told to fail with {status}."
    return {"error": {"code": status, "message": message, "status": "INVALID_ARGUMENT"}}


PROTOCOL = Protocol(
    r"/v1(beta)?/models/[^:]+:(stream)?[gG]enerateContent",
    read_request,
    write_answer,
    write_events,
    write_error,
)
