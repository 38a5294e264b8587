"""OpenAI's chat completions: https://platform.openai.com/docs/api-reference/chat"""

import json
from collections.abc import Iterator
from typing import Any

from tests.corpus.protocols.protocol import Protocol, Question, Request, check_keys, split, write_event
from tests.corpus.said import OfferedTool, SaidAnswer, SaidCall, SaidMessage


def read_request(path: str, body: dict[str, Any]) -> Request:  # noqa: ARG001
    return Request(
        messages=tuple(_read_message(message) for message in body["messages"]),
        tools=tuple(_read_tool(tool) for tool in body.get("tools") or ()),
        streamed=bool(body.get("stream")),
    )


def _read_message(message: dict[str, Any]) -> SaidMessage:
    check_keys(message, {"role", "content", "tool_calls", "tool_call_id", "name", "refusal", "annotations"})
    text, images = _read_content(message.get("content"))
    calls = tuple(
        SaidCall(call["function"]["name"], json.loads(call["function"]["arguments"]), call["id"])
        for call in message.get("tool_calls") or ()
    )
    role = {"developer": "system"}.get(message["role"], message["role"])
    return SaidMessage(role, text, calls, message.get("tool_call_id"), images)


def _read_content(content: Any) -> tuple[str, int]:
    if content is None or isinstance(content, str):
        return content or "", 0
    texts = [part["text"] for part in content if part["type"] == "text"]
    images = sum(part["type"] == "image_url" for part in content)
    if len(texts) + images != len(content):
        raise ValueError(f"the stand-in does not know a part of {content}")
    return "\n".join(texts), images


def _read_tool(tool: dict[str, Any]) -> OfferedTool:
    function = tool["function"]
    return OfferedTool(function["name"], function.get("description"), function.get("parameters"))


def write_answer(question: Question) -> dict[str, Any]:
    asked, answered = question.request.count_tokens(), question.count_answered()
    return {
        **_head(question.id, "chat.completion"),
        "choices": [
            {
                "index": index,
                "message": _write_message(answer),
                "finish_reason": _write_end(answer),
                "logprobs": None,
            }
            for index, answer in enumerate(question.answers)
        ],
        "usage": {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered},
    }


def _head(answer_id: str, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{answer_id}", "object": kind, "created": 1_900_000_000, "model": "harbour-large"}


def _write_message(answer: SaidAnswer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or None, "refusal": None}
    if answer.thoughts:
        message["reasoning_content"] = answer.thoughts
    if answer.calls:
        message["tool_calls"] = [_write_call(call) for call in answer.calls]
    return message


def _write_call(call: SaidCall) -> dict[str, Any]:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _write_end(answer: SaidAnswer) -> str:
    return "length" if answer.cut_off else "tool_calls" if answer.calls else "stop"


def write_events(question: Question) -> Iterator[bytes]:
    for index, answer in enumerate(question.answers):
        for delta in _write_deltas(answer):
            yield _write_chunk(question.id, index, delta, None)
        yield _write_chunk(question.id, index, {}, _write_end(answer))
    if (question.body.get("stream_options") or {}).get("include_usage"):
        usage = write_answer(question)["usage"]
        yield write_event({**_head(question.id, "chat.completion.chunk"), "choices": [], "usage": usage})
    yield write_event("[DONE]")


def _write_deltas(answer: SaidAnswer) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": ""}
    yield from ({"reasoning_content": piece} for piece in split(answer.thoughts))
    yield from ({"content": piece} for piece in split(answer.text))
    for number, call in enumerate(answer.calls):
        function = {"name": call.name, "arguments": ""}
        yield {"tool_calls": [{"index": number, "id": call.id, "type": "function", "function": function}]}
        for piece in split(json.dumps(call.arguments, ensure_ascii=False)):
            yield {"tool_calls": [{"index": number, "function": {"arguments": piece}}]}


def _write_chunk(answer_id: str, index: int, delta: dict[str, Any], end: str | None) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": end}
    return write_event({**_head(answer_id, "chat.completion.chunk"), "choices": [choice]})


def write_error(status: int) -> dict[str, Any]:
    message = f"The stand-in was told to fail with {status}."
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


PROTOCOL = Protocol(r"(/v1)?/chat/completions", read_request, write_answer, write_events, write_error)
