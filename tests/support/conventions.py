"""One conversation, written as the tracers of each convention write it: flat OTLP attributes.

A convention that records a conversation twice (listed attributes, and the bodies of request and answer) takes
two conversations, so that one record can be damaged.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from extractors.examples.types import Message
from tests.support.conversations import Turn, outline_messages
from tests.support.flat_attributes import (
    flatten,
    list_messages,
    write_body,
    write_part,
    write_text,
    write_tools,
)


@dataclass(frozen=True)
class Conversation:
    """What a model was asked and answered. Every call and every tool's result has an id."""

    prompt: tuple[Message, ...]
    answer: Message | None
    """None where a record lost it."""
    tools: tuple[str, ...] = ()
    """Names of the tools that were offered; empty where none were recorded."""

    def outline(self) -> list[Turn]:
        """Return the prompt and the answer as turns."""
        return outline_messages(self.messages)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The prompt, and the answer last where there is one."""
        return (*self.prompt, self.answer) if self.answer else self.prompt

    @property
    def system(self) -> str | None:
        """The text of the system prompt, where the conversation begins with one."""
        first = self.prompt[0] if self.prompt else None
        return first.content if first and first.role == "system" else None

    @property
    def after_system(self) -> tuple[Message, ...]:
        """The prompt without its system prompt."""
        return self.prompt if self.system is None else self.prompt[1:]


@dataclass(frozen=True)
class Style:
    """Choices that tracers of one convention make differently."""

    parts: bool = False
    """Texts are written as lists of one part where the convention allows both."""
    system_apart: bool = False
    """The system prompt is written outside the messages where the convention allows both, or not listed."""
    older: bool = False
    """Keys of an older release of the tracer, or less beside them, where the convention has both."""


SCHEMA = {"type": "object", "properties": {"place": {"type": "string"}}}
Attributes = dict[str, Any]
Single = Callable[[Conversation, Style], Attributes]
Double = Callable[[Conversation, Conversation, Style], Attributes]


def _parse(arguments: str) -> Any:
    return json.loads(arguments)


def _define(name: str) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {"name": name, "description": f"Does {name}.", "parameters": SCHEMA},
    }


def _define_flat(name: str, schema_key: str = "parameters") -> dict[str, Any]:
    return {"name": name, "description": f"Does {name}.", schema_key: SCHEMA}


def _end(answer: Message | None, text: str = "stop", calls: str = "tool_calls") -> str:
    return calls if answer is not None and answer.tool_calls else text


def _drop_none(value: dict[str, Any]) -> dict[str, Any]:
    return {key: inner for key, inner in value.items() if inner is not None}


def _name_calls(said: Conversation) -> dict[str | None, str]:
    return {call.id: call.name for message in said.prompt for call in message.tool_calls}


def _group(messages: Sequence[Message], joins: Callable[[Message, Message], bool]) -> list[list[Message]]:
    """Return runs of messages in which each joins the one before it."""
    groups: list[list[Message]] = []
    for message in messages:
        if groups and joins(groups[-1][-1], message):
            groups[-1].append(message)
        else:
            groups.append([message])
    return groups


# OpenAI's chat completions, by OpenInference.


PLAIN = Style()


def _to_chat(message: Message, style: Style = PLAIN) -> dict[str, Any]:
    content: Any = message.content or (None if message.tool_calls else "")
    if style.parts and message.role == "user":
        content = [write_text(message.content)]
    chat = {
        "role": message.role,
        "content": content,
        "tool_calls": [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
        or None,
        "tool_call_id": message.tool_call_id,
    }
    return {key: value for key, value in chat.items() if value is not None or key == "content"}


def _list_chat(message: Message, style: Style) -> dict[str, Any]:
    chat = _to_chat(message, style)
    listed = {key: value for key, value in chat.items() if key not in ("content", "tool_calls")}
    if isinstance(chat["content"], list):
        listed["contents"] = chat["content"]
    elif chat["content"]:
        listed["content"] = chat["content"]
    if message.tool_calls:
        listed["tool_calls"] = [
            {"id": call["id"], "function": call["function"]} for call in chat["tool_calls"]
        ]
    return _drop_none(listed)


def write_openai_chat(listed: Conversation, bodied: Conversation, style: Style) -> Attributes:
    """Write a chat completion as OpenInference's instrumentor of the OpenAI SDK does."""
    request: dict[str, Any] = {
        "messages": [_to_chat(message, style) for message in bodied.prompt],
        "model": "m-large",
        "temperature": 0.2,
    }
    if bodied.tools:
        request["tools"] = [_define(name) for name in bodied.tools]
    attributes = {
        "openinference.span.kind": "LLM",
        "llm.system": "openai",
        "llm.model_name": "m-large",
        "llm.invocation_parameters": json.dumps({"model": "m-large", "temperature": 0.2}),
        **write_body("input", request),
        **write_tools(*map(_define, listed.tools)),
        **list_messages("input", *(_list_chat(message, style) for message in listed.prompt)),
    }
    if bodied.answer is not None:
        message = {**_to_chat(bodied.answer), "refusal": None, "audio": None, "function_call": None}
        choice = {"index": 0, "finish_reason": _end(bodied.answer), "logprobs": None, "message": message}
        output = {"id": "chatcmpl-1", "object": "chat.completion", "choices": [choice], "model": "m-large"}
        attributes |= write_body("output", output)
    if listed.answer is not None:
        attributes |= list_messages("output", _list_chat(listed.answer, PLAIN))
        attributes |= {"llm.finish_reason": _end(listed.answer)}
    return attributes | {"llm.token_count.prompt": 20, "llm.token_count.completion": 7}


# Anthropic's messages, by OpenInference.


def _to_blocks(message: Message) -> list[dict[str, Any]]:
    if message.role == "tool":
        result = {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": message.content}
        return [_drop_none(result)]
    blocks: list[dict[str, Any]] = [write_text(message.content)] if message.content else []
    for call in message.tool_calls:
        use = {"type": "tool_use", "id": call.id, "name": call.name, "input": _parse(call.arguments)}
        blocks.append(_drop_none(use))
    return blocks


def _group_user_turns(messages: Sequence[Message]) -> list[list[Message]]:
    return _group(messages, lambda before, after: before.role == "tool" and after.role in ("tool", "user"))


def _list_anthropic_turn(turn: list[Message], style: Style) -> dict[str, Any]:
    """List one turn: of several results the tracer keeps the last, with its id."""
    results = [message for message in turn if message.role == "tool"]
    if not results:
        return _list_chat(turn[0], style if turn[0].role == "user" else PLAIN)
    last = results[-1]
    listed: dict[str, Any] = {"role": "user", "content": last.content, "tool_call_id": last.tool_call_id}
    words = [message for message in turn if message.role != "tool"]
    if words:
        listed["contents"] = [*([None] * len(results)), write_text(words[0].content)]
    return _drop_none(listed)


def write_anthropic(listed: Conversation, bodied: Conversation, style: Style) -> Attributes:
    """Write a message as OpenInference's instrumentor of the Anthropic SDK does."""
    turns = []
    for turn in _group_user_turns(bodied.after_system):
        role = "user" if turn[0].role == "tool" else turn[0].role
        blocks = [block for message in turn for block in _to_blocks(message)]
        plain = len(turn) == 1 and role == "user" and turn[0].role == "user" and not style.parts
        turns.append({"role": role, "content": turn[0].content if plain else blocks})
    request: dict[str, Any] = {"model": "c-large", "max_tokens": 1024, "messages": turns}
    if bodied.system is not None:
        request["system"] = [write_text(bodied.system)] if style.parts else bodied.system
    if bodied.tools:
        request["tools"] = [_define_flat(name, "input_schema") for name in bodied.tools]
    listed_turns = [_list_anthropic_turn(turn, style) for turn in _group_user_turns(listed.after_system)]
    if listed.system is not None and not style.system_apart:
        listed_turns = [{"role": "system", "content": listed.system}, *listed_turns]
    attributes = {
        "openinference.span.kind": "LLM",
        "llm.system": "anthropic",
        "llm.model_name": "c-large",
        "llm.invocation_parameters": json.dumps({"model": "c-large", "max_tokens": 1024}),
        **write_body("input", request),
        **write_tools(*(_define_flat(name, "input_schema") for name in listed.tools)),
        **list_messages("input", *listed_turns),
    }
    if bodied.answer is not None:
        output = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "content": _to_blocks(bodied.answer),
            "stop_reason": _end(bodied.answer, "end_turn", "tool_use"),
            "stop_sequence": None,
        }
        attributes |= write_body("output", output)
    if listed.answer is not None:
        attributes |= list_messages("output", _list_anthropic_answer(listed.answer, style))
    return attributes | {"llm.token_count.prompt": 20, "llm.token_count.completion": 7}


def _list_anthropic_answer(answer: Message, style: Style) -> dict[str, Any]:
    listed = _list_chat(answer, PLAIN)
    if style.parts and answer.content:
        listed["contents"] = [write_text(listed.pop("content"))]
    return listed


# OpenAI's Responses, by OpenInference.


def _to_items(message: Message, style: Style) -> list[dict[str, Any]]:
    if message.role == "tool":
        item = {"type": "function_call_output", "call_id": message.tool_call_id, "output": message.content}
        return [_drop_none(item)]
    items: list[dict[str, Any]] = []
    if message.content or not message.tool_calls:
        kind = "output_text" if message.role == "assistant" else "input_text"
        content = [{"type": kind, "text": message.content}] if style.parts else message.content
        items.append({"type": "message", "role": message.role, "content": content})
    for call in message.tool_calls:
        item = {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}
        items.append(_drop_none(item))
    return items


def _list_items(message: Message, style: Style) -> list[dict[str, Any]]:
    """List one message: each call of a tool is a message of its own."""
    listed = []
    if message.content or not message.tool_calls:
        words = message.model_copy(update={"tool_calls": ()})
        content = _list_chat(words, PLAIN)
        if style.parts and content.get("content") and message.role != "tool":
            content["contents"] = [write_text(content.pop("content"))]
        listed.append(content)
    for call in message.tool_calls:
        made = message.model_copy(update={"content": "", "tool_calls": (call,)})
        listed.append(_list_chat(made, PLAIN))
    return listed


def write_openai_responses(listed: Conversation, bodied: Conversation, style: Style) -> Attributes:
    """Write a response as OpenInference's instrumentor of the OpenAI SDK does."""
    request: dict[str, Any] = {"model": "m-large"}
    prompt = bodied.prompt
    if bodied.system is not None and style.system_apart:
        request["instructions"] = bodied.system
        prompt = bodied.after_system
    request["input"] = [item for message in prompt for item in _to_items(message, style)]
    definitions = [{"type": "function", **_define_flat(name), "strict": True} for name in bodied.tools]
    if definitions:
        request["tools"] = definitions
    messages = [entry for message in listed.prompt for entry in _list_items(message, style)]
    if listed.system is None or not style.system_apart:
        messages = [{}, *messages]
    attributes = {
        "openinference.span.kind": "LLM",
        "llm.system": "openai",
        "llm.model_name": "m-large",
        "llm.invocation_parameters": json.dumps({"model": "m-large"}),
        **write_body("input", request),
        **write_tools(*({"type": "function", **_define_flat(name), "strict": True} for name in listed.tools)),
        **list_messages("input", *messages),
    }
    if bodied.answer is not None:
        output = {
            "id": "resp_1",
            "object": "response",
            "status": "completed",
            "error": None,
            "incomplete_details": None,
            "previous_response_id": None,
            "max_output_tokens": None,
            "output": _to_items(bodied.answer, Style(parts=True)),
        }
        attributes |= write_body("output", output)
    if listed.answer is not None:
        attributes |= list_messages("output", *_list_items(listed.answer, Style(parts=True)))
    return attributes | {"llm.token_count.prompt": 20, "llm.token_count.completion": 7}


# LangChain, by OpenInference.

LANGCHAIN = {
    "system": "SystemMessage",
    "user": "HumanMessage",
    "assistant": "AIMessage",
    "tool": "ToolMessage",
}
LANGCHAIN_TYPES = {"system": "system", "user": "human", "assistant": "ai", "tool": "tool"}


def _serialise(message: Message, style: Style) -> dict[str, Any]:
    content: Any = message.content
    if style.parts and message.role == "user":
        content = [write_text(message.content)]
    kwargs: dict[str, Any] = {
        "content": content,
        "type": LANGCHAIN_TYPES[message.role],
        "additional_kwargs": {},
    }
    if message.role == "assistant":
        kwargs["tool_calls"] = [
            {"name": call.name, "args": _parse(call.arguments), "id": call.id, "type": "tool_call"}
            for call in message.tool_calls
        ]
        kwargs["invalid_tool_calls"] = []
    if message.role == "tool":
        kwargs |= {"tool_call_id": message.tool_call_id, "status": "success"}
    names = ["langchain", "schema", "messages", LANGCHAIN[message.role]]
    return {"lc": 1, "type": "constructor", "id": names, "kwargs": kwargs}


def write_langchain(listed: Conversation, bodied: Conversation, style: Style) -> Attributes:
    """Write a call of a chat model as OpenInference's instrumentor of LangChain does."""
    parameters: dict[str, Any] = {"model": "m-large", "_type": "openai-chat", "stop": None}
    if bodied.tools:
        parameters["tools"] = [_define(name) for name in bodied.tools]
    attributes = {
        "openinference.span.kind": "LLM",
        "llm.model_name": "m-large",
        **write_body("input", {"messages": [[_serialise(message, style) for message in bodied.prompt]]}),
        **list_messages("input", *(_list_chat(message, style) for message in listed.prompt)),
        "llm.invocation_parameters": json.dumps(parameters),
        **write_tools(*map(_define, listed.tools)),
    }
    if bodied.answer is not None:
        message = _serialise(bodied.answer, PLAIN)
        ended = {"finish_reason": _end(bodied.answer), "model_name": "m-large"}
        message["kwargs"]["response_metadata"] = ended
        generation = {
            "text": bodied.answer.content,
            "generation_info": {"finish_reason": _end(bodied.answer), "logprobs": None},
            "type": "ChatGeneration",
            "message": message,
        }
        output = {"generations": [[generation]], "llm_output": {"model_name": "m-large"}, "run": None}
        attributes |= write_body("output", {**output, "type": "LLMResult"})
    if listed.answer is not None:
        attributes |= list_messages("output", _list_chat(listed.answer, PLAIN))
    return attributes | {"llm.token_count.prompt": 20, "llm.token_count.completion": 7}


# GenAI, current and older.


def _to_call_part(call: Any) -> dict[str, Any]:
    part = {"type": "tool_call", "id": call.id, "name": call.name, "arguments": _parse(call.arguments)}
    return {key: value for key, value in part.items() if key != "id" or value is not None}


def _to_genai(message: Message) -> dict[str, Any]:
    if message.role == "tool":
        part = {"type": "tool_call_response", "id": message.tool_call_id, "response": message.content}
        return {"role": "tool", "parts": [_drop_none(part)]}
    parts = [write_part(message.content)] if message.content else []
    return {"role": message.role, "parts": [*parts, *map(_to_call_part, message.tool_calls)]}


def _to_genai_answer(answer: Message | None) -> list[dict[str, Any]]:
    ended = {"finish_reason": _end(answer, "stop", "tool_call")}
    return [] if answer is None else [{**_to_genai(answer), **ended}]


def _define_genai(tools: Sequence[str]) -> Attributes:
    definitions = [{"type": "function", **_define_flat(name)} for name in tools]
    return {"gen_ai.tool.definitions": json.dumps(definitions)} if tools else {}


def write_genai_chat(said: Conversation, style: Style) -> Attributes:
    """Write a chat in the current GenAI convention, which Phoenix maps on arrival."""
    prompt = said.prompt
    attributes: Attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m-large",
        "gen_ai.response.id": "r1",
        "gen_ai.response.model": "m-large",
        "gen_ai.usage.input_tokens": 20,
        "gen_ai.usage.output_tokens": 7,
        **_define_genai(said.tools),
    }
    if said.system is not None and style.system_apart:
        attributes["gen_ai.system_instructions"] = json.dumps([write_part(said.system)])
        prompt = said.after_system
    if style.older:
        attributes["gen_ai.response.finish_reasons"] = [_end(said.answer)]
    return attributes | {
        "gen_ai.input.messages": json.dumps([_to_genai(message) for message in prompt]),
        "gen_ai.output.messages": json.dumps(_to_genai_answer(said.answer)),
    }


def write_pydantic_ai(said: Conversation, style: Style) -> Attributes:
    """Write a chat as pydantic-ai does: the tools' results stand in the user's messages."""
    messages, names = [], _name_calls(said)
    for turn in _group_user_turns(said.after_system):
        if turn[0].role != "tool":
            messages.append(_to_genai(turn[0]))
            continue
        parts: list[dict[str, Any]] = []
        for message in turn:
            if message.role == "tool":
                part = {"type": "tool_call_response", "id": message.tool_call_id, "result": message.content}
                parts.append(_drop_none({**part, "name": names.get(message.tool_call_id)}))
            else:
                parts.append(write_part(message.content))
        messages.append({"role": "user", "parts": parts})
    attributes: Attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.system": "openai",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m-large",
        **_define_genai(said.tools),
    }
    if said.system is not None and style.system_apart:
        attributes["gen_ai.system_instructions"] = json.dumps([write_part(said.system)])
    elif said.system is not None:
        messages = [{"role": "system", "parts": [write_part(said.system)]}, *messages]
    return attributes | {
        "gen_ai.input.messages": json.dumps(messages, ensure_ascii=False),
        "gen_ai.output.messages": json.dumps(_to_genai_answer(said.answer), ensure_ascii=False),
        "gen_ai.response.finish_reasons": [_end(said.answer)],
        "gen_ai.usage.input_tokens": 20,
        "gen_ai.usage.output_tokens": 7,
    }


def write_older_json(said: Conversation, style: Style) -> Attributes:
    """Write a chat in the older GenAI attributes that hold everything as JSON."""
    write: Callable[[Message], dict[str, Any]] = _to_genai if style.parts else _to_chat
    answer: Any = [write(said.answer)] if said.answer is not None else []
    if style.system_apart and said.answer is not None and not said.answer.tool_calls:
        answer = {"text": said.answer.content, "finish_reason": "stop"}
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.system": "openai",
        "gen_ai.request.model": "m-large",
        "gen_ai.prompt": json.dumps([write(message) for message in said.prompt]),
        "gen_ai.completion": json.dumps(answer),
        "gen_ai.response.finish_reasons": [_end(said.answer)],
        **_define_genai(said.tools),
    }


def write_openllmetry(said: Conversation, style: Style) -> Attributes:
    """Write a chat as OpenLLMetry's older releases index it."""

    def to_indexed(message: Message) -> dict[str, Any]:
        content: Any = message.content or None
        if style.parts and message.role == "user":
            content = json.dumps([write_text(message.content)])
        calls = [
            _drop_none({"id": call.id, "name": call.name, "arguments": call.arguments})
            for call in message.tool_calls
        ]
        indexed = {"role": message.role, "content": content, "tool_call_id": message.tool_call_id}
        return indexed | ({"tool_calls": calls} if calls else {})

    functions = [{**_define_flat(name), "parameters": json.dumps(SCHEMA)} for name in said.tools]
    answer = [] if said.answer is None else [{**to_indexed(said.answer), "finish_reason": _end(said.answer)}]
    return {
        "llm.request.type": "chat",
        "gen_ai.system": "openai",
        "gen_ai.request.model": "m-large",
        **flatten("llm.request.functions", functions),
        **flatten("gen_ai.prompt", [to_indexed(message) for message in said.prompt]),
        "gen_ai.usage.prompt_tokens": 20,
        "gen_ai.usage.completion_tokens": 7,
        **flatten("gen_ai.completion", answer),
    }


def write_vercel(said: Conversation, style: Style) -> Attributes:
    """Write a request to the model as Vercel's AI SDK does."""
    names = _name_calls(said)

    def to_model_message(turn: list[Message]) -> dict[str, Any]:
        first = turn[0]
        if first.role == "system":
            return {"role": "system", "content": first.content}
        content: list[dict[str, Any]] = []
        for message in turn:
            if message.role == "tool":
                result = {"type": "tool-result", "toolCallId": message.tool_call_id}
                result |= {"toolName": names.get(message.tool_call_id)}
                told: Any = {"output": {"type": "text", "value": message.content}}
                content.append(_drop_none(result | ({"result": message.content} if style.older else told)))
                continue
            content += [write_text(message.content)] if message.content else []
            content += [
                _drop_none(
                    {
                        "type": "tool-call",
                        "toolCallId": call.id,
                        "toolName": call.name,
                        "args" if style.older else "input": _parse(call.arguments),
                    }
                )
                for call in message.tool_calls
            ]
        return {"role": first.role, "content": content}

    turns = _group(said.prompt, lambda before, after: before.role == after.role == "tool")
    attributes: Attributes = {
        "operation.name": "ai.generateText.doGenerate",
        "ai.operationId": "ai.generateText.doGenerate",
        "ai.model.id": "m-large",
        "gen_ai.system": "openai.chat",
        "gen_ai.request.model": "m-large",
        "ai.prompt.messages": json.dumps([to_model_message(turn) for turn in turns]),
    }
    if said.tools:
        attributes["ai.prompt.tools"] = [
            json.dumps({"type": "function", **_define_flat(name, "inputSchema")}) for name in said.tools
        ]
    if said.answer is None:
        return attributes
    if said.answer.content:
        attributes["ai.response.text"] = said.answer.content
    if said.answer.tool_calls:
        calls = [
            _drop_none(
                {
                    "toolCallId": call.id,
                    "toolName": call.name,
                    "args" if style.older else "input": call.arguments,
                }
            )
            for call in said.answer.tool_calls
        ]
        attributes["ai.response.toolCalls"] = json.dumps(calls)
    reason = _end(said.answer, "stop", "tool-calls")
    return attributes | {"ai.response.finishReason": reason, "gen_ai.response.finish_reasons": [reason]}


def write_both(listed: Conversation, said: Conversation, style: Style) -> Attributes:
    """Write a chat as a tracer does that emits OpenInference and GenAI side by side."""
    attributes = write_openai_chat(listed, listed, style)
    bodies = [key for key in attributes if key.startswith(("input.", "output."))]
    for key in bodies:
        del attributes[key]
    return write_genai_chat(said, style) | attributes


SINGLE: dict[str, Single] = {
    "genai": write_genai_chat,
    "pydantic-ai": write_pydantic_ai,
    "openllmetry": write_openllmetry,
    "older-json": write_older_json,
    "vercel": write_vercel,
}
"""Conventions that record a conversation once."""

DOUBLE: dict[str, Double] = {
    "openai-chat": write_openai_chat,
    "anthropic": write_anthropic,
    "openai-responses": write_openai_responses,
    "langchain": write_langchain,
    "openinference-and-genai": write_both,
}
"""Conventions that record a conversation twice."""
