"""Chat messages, tools, requests and responses, from the JSON shapes in which SDKs write them.

Everything is brought to OpenAI's chat format. LangChain's serialised messages
(`{"lc": 1, "type": "constructor", "kwargs": …}` or `{"type": "human", "data": …}`) are read too.
"""

import json
from typing import Any

from extractors.examples.types import Message, ToolCall
from extractors.span_parsing.drop_reasons import DropReason, Unreadable
from extractors.span_parsing.nested_attributes import parse_json
from extractors.values import Value

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
}
TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
# What a reasoning model thought is neither shown to it again nor part of the answer.
SILENT_PARTS = frozenset({"reasoning", "thinking", "redacted_thinking"})


class ChatRequest(Value):
    """The prompt and the tools of one call."""

    prompt: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()


def read_message(chat: Any) -> Message:
    """One message of OpenAI's or LangChain's format. Raises Unreadable."""
    chat = _unwrap_langchain(chat)
    role = chat.get("role")
    if not isinstance(role, str) or role.casefold() not in ROLES:
        raise Unreadable(DropReason.MALFORMED)
    return Message(
        role=ROLES[role.casefold()],
        content=read_content(chat.get("content")),
        tool_calls=_read_tool_calls(chat),
        tool_call_id=_read_optional_text(chat.get("tool_call_id")),
        name=_read_optional_text(chat.get("name")),
    )


def _unwrap_langchain(chat: Any) -> dict[str, Any]:
    if not isinstance(chat, dict):
        raise Unreadable(DropReason.MALFORMED)
    inner = chat.get("kwargs") or chat.get("data")
    if "role" in chat or not isinstance(inner, dict):
        return chat
    kind = inner.get("type") or chat.get("type")
    extra = inner.get("additional_kwargs")
    return {**(extra if isinstance(extra, dict) else {}), "role": kind, **inner}


def read_content(content: Any) -> str:
    """The text of a message: a string, or text parts one to a line, as vLLM joins them."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise Unreadable(DropReason.MALFORMED)
    return "\n".join(text for part in content if (text := _read_part(part)) is not None)


def _read_part(part: Any) -> str | None:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise Unreadable(DropReason.MALFORMED)
    kind = part.get("type") or "text"
    if not isinstance(kind, str):
        raise Unreadable(DropReason.MALFORMED)
    if kind in SILENT_PARTS:
        return None
    if kind not in TEXT_PARTS:
        raise Unreadable(DropReason.NOT_TEXT)
    text = part.get("text", "")
    if not isinstance(text, str):
        raise Unreadable(DropReason.MALFORMED)
    return text


def _read_tool_calls(chat: dict[str, Any]) -> tuple[ToolCall, ...]:
    calls = chat.get("tool_calls") or []
    if not calls and chat.get("function_call"):
        calls = [{"function": chat["function_call"]}]
    if not isinstance(calls, list):
        raise Unreadable(DropReason.MALFORMED)
    return tuple(_read_tool_call(call) for call in calls)


def _read_tool_call(call: Any) -> ToolCall:
    if not isinstance(call, dict):
        raise Unreadable(DropReason.MALFORMED)
    function = call["function"] if isinstance(call.get("function"), dict) else call
    name = function.get("name")
    arguments = function.get("arguments", function.get("args", "{}"))
    if not isinstance(name, str):
        raise Unreadable(DropReason.MALFORMED)
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return ToolCall(id=_read_optional_text(call.get("id")), name=name, arguments=arguments)


def _read_optional_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value or None
    raise Unreadable(DropReason.MALFORMED)


def read_tools(tools: Any) -> tuple[dict[str, Any], ...]:
    """Tool definitions in OpenAI's nested format; flat ones (Responses API, Anthropic) are nested."""
    if tools is None:
        return ()
    if not isinstance(tools, list):
        raise Unreadable(DropReason.MALFORMED)
    return tuple(_read_tool(parse_json(tool)) for tool in tools)


def _read_tool(tool: Any) -> dict[str, Any]:
    if not isinstance(tool, dict):
        raise Unreadable(DropReason.MALFORMED)
    if isinstance(tool.get("function"), dict):
        return {"type": "function", "function": tool["function"]}
    if not isinstance(tool.get("name"), str):
        raise Unreadable(DropReason.MALFORMED)
    function = {
        "name": tool["name"],
        "description": tool.get("description"),
        "parameters": tool.get("parameters") or tool.get("input_schema"),
    }
    return {
        "type": "function",
        "function": {key: value for key, value in function.items() if value is not None},
    }


def read_request(body: Any) -> ChatRequest | None:
    """The chat request in a JSON body, or None where `body` is no request that is known."""
    if not isinstance(body, dict):
        return None
    messages = body.get("messages")
    if not messages or not isinstance(messages, list):
        return None
    if isinstance(messages[0], list):
        # LangChain traces a batch; a span has one conversation.
        messages = messages[0] if len(messages) == 1 else [None]
    prompt = tuple(read_message(message) for message in messages)
    system = read_content(body.get("system"))
    if system:
        prompt = (Message(role="system", content=system), *prompt)
    return ChatRequest(prompt=prompt, tools=read_tools(body.get("tools")))


def read_response(body: Any) -> Message | None:
    """The assistant's message in a JSON response, or None where `body` is no response that is known."""
    if isinstance(body, str):
        body = [body]
    if isinstance(body, list) and all(isinstance(answer, str) for answer in body):
        return merge_output_messages([Message(role="assistant", content=answer) for answer in body])
    if not isinstance(body, dict):
        return None
    if isinstance(body.get("choices"), list):
        return merge_output_messages([_read_choice(choice) for choice in body["choices"]])
    if isinstance(body.get("generations"), list):
        batch = body["generations"][0] if len(body["generations"]) == 1 else [None]
        return merge_output_messages(
            [_read_choice(choice) for choice in batch] if isinstance(batch, list) else []
        )
    if body.get("role") == "assistant":
        return merge_output_messages([read_message(body)])
    return None


def _read_choice(choice: Any) -> Message:
    if not isinstance(choice, dict):
        raise Unreadable(DropReason.MALFORMED)
    if isinstance(choice.get("message"), dict):
        return read_message({"role": "assistant", **_unwrap_langchain(choice["message"])})
    return Message(role="assistant", content=read_content(choice.get("text")))


def merge_output_messages(messages: list[Message]) -> Message | None:
    """The one answer among output messages; messages that only call tools belong to it.

    Raises Unreadable where several differ in content, or one is not the assistant's.
    """
    messages = [message for message in messages if message.content.strip() or message.tool_calls]
    if any(message.role != "assistant" for message in messages):
        raise Unreadable(DropReason.MALFORMED)
    contents = {message.content for message in messages if message.content}
    if len(contents) > 1:
        raise Unreadable(DropReason.SEVERAL_ANSWERS)
    if not messages:
        return None
    calls = dict.fromkeys(call for message in messages for call in message.tool_calls)
    return Message(role="assistant", content="".join(contents), tool_calls=tuple(calls))
