"""One conversation as each API of the gateway carries it: requests, answers, and the events of streams."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from extractors.examples.types import Message, ToolCall

Json = dict[str, Any]
SCHEMA = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}


@dataclass(frozen=True)
class Said:
    """A prompt and its answer. Arguments are JSON as `json.dumps` writes it."""

    prompt: tuple[Message, ...]
    answer: Message
    tools: tuple[str, ...] = ()

    @property
    def system(self) -> str | None:
        first = self.prompt[0]
        return first.content if first.role == "system" else None

    @property
    def turns(self) -> tuple[Message, ...]:
        """The prompt without its system prompt."""
        return self.prompt if self.system is None else self.prompt[1:]


def cut(text: str, size: int) -> list[str]:
    """Return `text` in pieces of this size."""
    return [text[start : start + size] for start in range(0, len(text), size)]


def _describe(name: str) -> str:
    return f"Looks for a {name}."


class ChatCarrier:
    """OpenAI's chat completions."""

    path = "/v1/chat/completions"

    def ask(self, said: Said) -> Json:
        functions = [
            {"name": name, "description": _describe(name), "parameters": SCHEMA} for name in said.tools
        ]
        tools = [{"type": "function", "function": function} for function in functions]
        return {
            "model": "acme/routing",
            "messages": [self._write(message) for message in said.prompt],
            **({"tools": tools} if tools else {}),
        }

    def answer(self, said: Said) -> Json:
        return {
            "object": "chat.completion",
            "model": "base",
            "choices": [
                {"index": 0, "message": self._write(said.answer), "finish_reason": self._end(said.answer)}
            ],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
        }

    def stream(self, said: Said, size: int) -> list[Json]:
        answer = said.answer
        deltas: list[Json] = [{"role": "assistant", "content": ""}]
        deltas += [{"reasoning_content": piece} for piece in cut(answer.reasoning or "", size)]
        deltas += [{"content": piece} for piece in cut(answer.content, size)]
        for index, call in enumerate(answer.tool_calls):
            begun = {
                "index": index,
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": ""},
            }
            deltas.append({"tool_calls": [begun]})
            deltas += [
                {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
                for piece in cut(call.arguments, size)
            ]
        head = {"object": "chat.completion.chunk", "model": "base"}
        chunks = [
            {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
        ]
        last = {"index": 0, "delta": {}, "finish_reason": self._end(answer)}
        usage = self.answer(said)["usage"]
        return [*chunks, {**head, "choices": [last]}, {**head, "choices": [], "usage": usage}]

    def _write(self, message: Message) -> Json:
        chat = message.to_chat()
        return {**chat, "content": chat["content"] or None} if message.role == "assistant" else chat

    def _end(self, answer: Message) -> str:
        return "tool_calls" if answer.tool_calls else "stop"


class ResponsesCarrier:
    """OpenAI's Responses."""

    path = "/v1/responses"

    def ask(self, said: Said) -> Json:
        tools = [
            {"type": "function", "name": name, "description": _describe(name), "parameters": SCHEMA}
            for name in said.tools
        ]
        return {
            "model": "acme/routing",
            **({"instructions": said.system} if said.system is not None else {}),
            "input": [item for message in said.turns for item in self._write(message)],
            **({"tools": tools} if tools else {}),
        }

    def answer(self, said: Said) -> Json:
        return {
            "object": "response",
            "model": "base",
            "status": "completed",
            "error": None,
            "incomplete_details": None,
            "output": [{**item, "status": "completed"} for item in self._write(said.answer)],
            "usage": {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10},
        }

    def stream(self, said: Said, size: int) -> list[Json]:
        whole = self.answer(said)
        begun = {**whole, "status": "in_progress", "output": [], "usage": None}
        events: list[Json] = [
            {"type": "response.created", "response": begun},
            {"type": "response.in_progress", "response": begun},
        ]
        for index, item in enumerate(whole["output"]):
            events += [{**event, "output_index": index} for event in self._stream_item(item, size)]
        events.append({"type": "response.completed", "response": whole})
        return [{**event, "sequence_number": number} for number, event in enumerate(events)]

    def _stream_item(self, item: Json, size: int) -> Iterator[Json]:
        kind = item["type"]
        empty = {"arguments": ""} if kind == "function_call" else {"content": []}
        yield {"type": "response.output_item.added", "item": {**item, **empty, "status": "in_progress"}}
        if kind == "function_call":
            for piece in cut(item["arguments"], size):
                yield {"type": "response.function_call_arguments.delta", "delta": piece}
            yield {"type": "response.function_call_arguments.done", "arguments": item["arguments"]}
        for number, part in enumerate(item.get("content", ())):
            at = {"content_index": number}
            yield {"type": "response.content_part.added", **at, "part": {**part, "text": ""}}
            for piece in cut(part["text"], size):
                yield {"type": f"response.{part['type']}.delta", **at, "delta": piece}
            yield {"type": f"response.{part['type']}.done", **at, "text": part["text"]}
            yield {"type": "response.content_part.done", **at, "part": part}
        yield {"type": "response.output_item.done", "item": item}

    def _write(self, message: Message) -> Iterator[Json]:
        if message.reasoning is not None:
            thought = {"type": "reasoning_text", "text": message.reasoning}
            yield {"type": "reasoning", "id": "rs_1", "summary": [], "content": [thought]}
        if message.role == "tool":
            yield {
                "type": "function_call_output",
                "call_id": message.tool_call_id,
                "output": message.content,
            }
        elif message.role == "assistant" and message.content:
            text = {"type": "output_text", "text": message.content, "annotations": []}
            yield {"type": "message", "role": "assistant", "content": [text]}
        elif message.role != "assistant":
            yield {"role": message.role, "content": message.content}
        for call in message.tool_calls:
            yield {
                "type": "function_call",
                "call_id": call.id,
                "name": call.name,
                "arguments": call.arguments,
            }


class MessagesCarrier:
    """Anthropic's Messages."""

    path = "/v1/messages"

    def ask(self, said: Said) -> Json:
        tools = [
            {"name": name, "description": _describe(name), "input_schema": SCHEMA} for name in said.tools
        ]
        return {
            "model": "acme/routing",
            "max_tokens": 1000,
            **({"system": said.system} if said.system is not None else {}),
            "messages": list(self._group(said.turns)),
            **({"tools": tools} if tools else {}),
        }

    def answer(self, said: Said) -> Json:
        return {
            "type": "message",
            "role": "assistant",
            "model": "base",
            "content": list(self._write(said.answer)),
            "stop_reason": "tool_use" if said.answer.tool_calls else "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 7, "output_tokens": 3},
        }

    def stream(self, said: Said, size: int) -> list[Json]:
        whole = self.answer(said)
        begun = {
            **whole,
            "content": [],
            "stop_reason": None,
            "usage": {"input_tokens": 7, "output_tokens": 0},
        }
        events: list[Json] = [{"type": "message_start", "message": begun}, {"type": "ping"}]
        arguments = iter(call.arguments for call in said.answer.tool_calls)
        for index, block in enumerate(whole["content"]):
            written = next(arguments) if block["type"] == "tool_use" else ""
            events += [{**event, "index": index} for event in self._stream_block(block, written, size)]
        delta = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        events.append({"type": "message_delta", "delta": delta, "usage": whole["usage"]})
        return [*events, {"type": "message_stop"}]

    def _stream_block(self, block: Json, arguments: str, size: int) -> Iterator[Json]:
        kind = block["type"]
        if kind == "tool_use":
            yield {"type": "content_block_start", "content_block": {**block, "input": {}}}
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in cut(arguments, size)]
        else:
            yield {"type": "content_block_start", "content_block": {"type": kind, kind: ""}}
            deltas = [{"type": f"{kind}_delta", kind: piece} for piece in cut(block[kind], size)]
        for delta in deltas:
            yield {"type": "content_block_delta", "delta": delta}
        if kind == "thinking":
            signature = {"type": "signature_delta", "signature": block["signature"]}
            yield {"type": "content_block_delta", "delta": signature}
        yield {"type": "content_block_stop"}

    def _group(self, turns: Sequence[Message]) -> Iterator[Json]:
        """Yield the messages; results of tools, and the words of the user after them, are one."""
        waiting: list[Json] = []
        for turn in turns:
            blocks = list(self._write(turn))
            if turn.role == "tool":
                waiting += blocks
            elif turn.role == "user" and waiting:
                yield {"role": "user", "content": [*waiting, *blocks]}
                waiting = []
            else:
                if waiting:
                    yield {"role": "user", "content": waiting}
                    waiting = []
                yield {"role": turn.role, "content": turn.content if turn.role == "user" else blocks}
        if waiting:
            yield {"role": "user", "content": waiting}

    def _write(self, message: Message) -> Iterator[Json]:
        if message.reasoning is not None:
            yield {"type": "thinking", "thinking": message.reasoning, "signature": "sig"}
        if message.role == "tool":
            yield {
                "type": "tool_result",
                "tool_use_id": message.tool_call_id,
                "content": message.content,
            }
        elif message.content:
            yield {"type": "text", "text": message.content}
        for call in message.tool_calls:
            yield {
                "type": "tool_use",
                "id": call.id,
                "name": call.name,
                "input": json.loads(call.arguments),
            }


Carrier = ChatCarrier | ResponsesCarrier | MessagesCarrier
CARRIERS: dict[str, Carrier] = {
    "chat": ChatCarrier(),
    "responses": ResponsesCarrier(),
    "messages": MessagesCarrier(),
}


def call(call_id: str, name: str, **arguments: Any) -> ToolCall:
    """Return a call of a tool."""
    return ToolCall(id=call_id, name=name, arguments=json.dumps(arguments, ensure_ascii=False))
