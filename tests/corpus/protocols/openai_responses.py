"""OpenAI's Responses API: https://platform.openai.com/docs/api-reference/responses"""

import json
import math
from collections.abc import Iterator
from typing import Any

from tests.corpus.protocols.openai_chat import write_error
from tests.corpus.protocols.protocol import Protocol, Question, Request, split, write_event
from tests.corpus.said import OfferedTool, SaidAnswer, SaidCall, SaidMessage

KEPT: dict[str, tuple[SaidMessage, ...]] = {}
"""What was said up to an answer, by the answer's id: a later request may refer to it."""


def read_request(path: str, body: dict[str, Any]) -> Request:  # noqa: ARG001
    system = (SaidMessage("system", body["instructions"]),) if body.get("instructions") else ()
    given = body["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    before = KEPT[body["previous_response_id"]] if body.get("previous_response_id") else ()
    said = (*before, *_join_turns([_read_item(item) for item in items]))
    return Request(
        messages=(*system, *said),
        tools=tuple(_read_tool(tool) for tool in body.get("tools") or ()),
        streamed=bool(body.get("stream")),
    )


def _read_item(item: dict[str, Any]) -> SaidMessage:
    kind = item.get("type", "message")
    if kind == "function_call":
        call = SaidCall(item["name"], json.loads(item["arguments"]), item["call_id"])
        return SaidMessage("assistant", calls=(call,))
    if kind == "function_call_output":
        return SaidMessage("tool", item["output"], answers=item["call_id"])
    if kind != "message":
        raise ValueError(f"the stand-in does not know the item {item}")
    role = {"developer": "system"}.get(item["role"], item["role"])
    if isinstance(item["content"], str):
        return SaidMessage(role, item["content"])
    texts = [part["text"] for part in item["content"] if part["type"] in ("input_text", "output_text")]
    images = sum(part["type"] == "input_image" for part in item["content"])
    if len(texts) + images != len(item["content"]):
        raise ValueError(f"the stand-in does not know a part of {item}")
    return SaidMessage(role, "\n".join(texts), images=images)


def _join_turns(messages: list[SaidMessage]) -> list[SaidMessage]:
    """Items that the model wrote one after the other are one turn of the assistant."""
    joined: list[SaidMessage] = []
    for message in messages:
        if joined and message.role == joined[-1].role == "assistant":
            last = joined.pop()
            message = SaidMessage("assistant", last.text + message.text, (*last.calls, *message.calls))
        joined.append(message)
    return joined


def _read_tool(tool: dict[str, Any]) -> OfferedTool:
    if tool["type"] != "function":
        raise ValueError(f"the stand-in does not know the tool {tool}")
    return OfferedTool(tool["name"], tool.get("description"), tool.get("parameters"))


def write_answer(question: Question) -> dict[str, Any]:
    answer = question.answer
    said = (message for message in question.request.messages if message.role != "system")
    KEPT[f"resp_{question.id}"] = (*said, SaidMessage("assistant", answer.text, answer.calls))
    return _write_response(question, "incomplete" if answer.cut_off else "completed")


def _write_response(question: Question, status: str) -> dict[str, Any]:
    """The answer repeats most of the request, as the API does."""
    body = question.body
    begun = status == "in_progress"
    return {
        "id": f"resp_{question.id}",
        "object": "response",
        "created_at": 1_900_000_000,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "metadata": {},
        "model": body["model"],
        "output": [] if begun else _write_items(question.id, question.answer),
        "parallel_tool_calls": True,
        "previous_response_id": body.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None},
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": body.get("tools") or [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None if begun else _write_usage(question),
        "user": None,
    }


def _write_usage(question: Question) -> dict[str, Any]:
    asked, answered = question.request.count_tokens(), question.count_answered()
    return {
        "input_tokens": asked,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": answered,
        "output_tokens_details": {"reasoning_tokens": math.ceil(len(question.answer.thoughts) / 4)},
        "total_tokens": asked + answered,
    }


def _write_items(answer_id: str, answer: SaidAnswer) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if answer.thoughts:
        summary = [{"type": "summary_text", "text": answer.thoughts}]
        items.append({"id": f"rs_{answer_id}", "type": "reasoning", "summary": summary})
    if answer.text:
        items.append(
            {
                "id": f"msg_{answer_id}",
                "type": "message",
                "role": "assistant",
                "status": "incomplete" if answer.cut_off else "completed",
                "content": [{"type": "output_text", "text": answer.text, "annotations": []}],
            }
        )
    for number, call in enumerate(answer.calls):
        items.append(
            {
                "id": f"fc_{answer_id}_{number}",
                "type": "function_call",
                "status": "completed",
                "call_id": call.id,
                "name": call.name,
                "arguments": json.dumps(call.arguments, ensure_ascii=False),
            }
        )
    return items


def write_events(question: Question) -> Iterator[bytes]:
    whole = write_answer(question)
    begun = _write_response(question, "in_progress")
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for index, item in enumerate(whole["output"]):
        events += _write_item_events(index, item)
    end = "response.incomplete" if question.answer.cut_off else "response.completed"
    events.append({"type": end, "response": whole})
    for number, event in enumerate(events):
        yield write_event({**event, "sequence_number": number}, event["type"])


def _write_item_events(index: int, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    place = {"output_index": index, "item_id": item["id"]}
    if item["type"] == "message":
        (part,) = item["content"]
        inside = {**place, "content_index": 0}
        yield {
            "type": "response.output_item.added",
            "output_index": index,
            "item": {**item, "status": "in_progress", "content": []},
        }
        yield {"type": "response.content_part.added", **inside, "part": {**part, "text": ""}}
        for piece in split(part["text"]):
            yield {"type": "response.output_text.delta", **inside, "delta": piece, "logprobs": []}
        yield {"type": "response.output_text.done", **inside, "text": part["text"], "logprobs": []}
        yield {"type": "response.content_part.done", **inside, "part": part}
    elif item["type"] == "function_call":
        yield {
            "type": "response.output_item.added",
            "output_index": index,
            "item": {**item, "status": "in_progress", "arguments": ""},
        }
        for piece in split(item["arguments"]):
            yield {"type": "response.function_call_arguments.delta", **place, "delta": piece}
        done = {"name": item["name"], "arguments": item["arguments"]}
        yield {"type": "response.function_call_arguments.done", **place, **done}
    else:
        yield {"type": "response.output_item.added", "output_index": index, "item": item}
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


PROTOCOL = Protocol(r"(/v1)?/responses", read_request, write_answer, write_events, write_error)
