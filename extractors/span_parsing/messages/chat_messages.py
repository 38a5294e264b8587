"""Chat messages, from the JSON shapes in which SDKs write them.

Everything is brought to OpenAI's chat format: a tool's result becomes a message of its own, and the
items of one assistant turn become one message. LangChain's serialised messages
(`{"lc": 1, "type": "constructor", "kwargs": …}` or `{"type": "human", "data": …}`) are read too.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from extractors.examples.thoughts import REASONING_KEYS, split_thoughts
from extractors.examples.types import Message, ToolCall
from extractors.span_parsing.drop_reasons import DropReason, Unreadable, read_each
from extractors.span_parsing.messages.parts import (
    TEXT_TYPES,
    Part,
    Result,
    Text,
    Thought,
    build_call,
    check_expressible,
    is_text_alone,
    read_parts,
    read_result_part,
    to_optional_text,
)
from extractors.span_parsing.messages.placeholders import PLACEHOLDERS, is_placeholder
from extractors.span_parsing.messages.provider_searches import rests_on_search
from extractors.span_parsing.messages.serialised import find_parts_in_text, is_python_repr
from extractors.span_parsing.recorded import RecordedCall, RecordedMessage

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "chatbot": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
    # smolagents sends these to the model as the assistant's and the user's words.
    "tool-call": "assistant",
    "tool-response": "user",
}
MEDIA_FIELDS = (
    *(
        "audio",
        "images",
        "image",
        "videos",
        "video",
        "files",
        "file",
        "attachments",
        "experimental_attachments",
    ),
    *("image_output", "audio_output", "video_output", "file_output"),
)
"""Fields of a message beside its content that hold what is no text."""


BILLING_HEADER = "x-anthropic-billing-header"
"""How a block begins that Claude Code puts before its system prompt; no server shows it to the model."""


def read_message(chat: Any) -> Message:
    """Read one message of OpenAI's or LangChain's format. Raises Unreadable."""
    messages = read_chat(chat)
    if len(messages) != 1:
        raise Unreadable(DropReason.MALFORMED)
    return to_message(messages[0])


def read_content(content: Any) -> str:
    """Read the text of a message: a string, or text parts one to a line, as vLLM joins them."""
    return "\n".join(part.text for part in read_parts(content) if isinstance(part, Text))


def read_chats(chats: Sequence[Any], *, unwrap: bool = False) -> list[RecordedMessage]:
    """Read messages or items of any provider, in order.

    `unwrap` reads text that is the JSON of parts as these parts; else such a text is a flaw.
    Raises Unreadable, with the reason that decides where there is one.
    """
    return read_each(chats, partial(read_chat, unwrap=unwrap))


def read_chat(chat: Any, *, unwrap: bool = False) -> list[RecordedMessage]:
    """Read one message or item: more than one where it holds results of tools. Raises Unreadable."""
    chat = _unwrap_langchain(chat)
    if "role" not in chat and (item := _read_item(chat)) is not None:
        return item
    role = _read_role(chat.get("role"))
    if any(chat.get(key) for key in MEDIA_FIELDS):
        raise Unreadable(DropReason.NOT_TEXT)
    if chat.get("invalid_tool_calls"):
        raise Unreadable(DropReason.BROKEN_ARGUMENTS)
    if rests_on_search(chat):
        raise Unreadable(DropReason.SERVER_TOOL)
    content = next((chat[key] for key in ("parts", "blocks") if key in chat), chat.get("content"))
    parts = read_parts(content)
    if unwrap:
        parts = [inner for part in parts for inner in _unwrap_text(part)]
    if role == "system":
        parts = [part for part in parts if not _is_billing_header(part)] or parts
    calls = _merge_calls([part for part in parts if isinstance(part, RecordedCall)], _read_listed_calls(chat))
    texts = [part.text for part in parts if isinstance(part, Text)]
    message = RecordedMessage(
        role=role,
        texts=tuple(texts) if texts else ("",) if content in ("", []) else None,
        calls=tuple(calls),
        call_id=to_optional_text(chat.get("tool_call_id")),
        name=to_optional_text(chat.get("name")),
        reasoning=_read_reasoning(chat, parts),
    )
    if any(isinstance(part, Result) for part in parts):
        return _split_at_results(message, parts)
    if role == "user" and message.call_id is not None:
        # Tracers of Anthropic's API, and Phoenix, keep one of the results in such a message.
        message = replace(message, role="tool", stands_for=frozenset({"tool"}))
    return [mark_flaw(_take_out_thoughts(message))]


def _is_billing_header(part: Part) -> bool:
    return isinstance(part, Text) and part.text.startswith(BILLING_HEADER)


def _unwrap_langchain(chat: Any) -> dict[str, Any]:
    if not isinstance(chat, dict):
        raise Unreadable(DropReason.MALFORMED)
    inner = chat.get("kwargs") or chat.get("data")
    if "role" in chat or not isinstance(inner, dict):
        return chat
    kind = inner.get("type") or chat.get("type")
    if kind == "constructor":
        path = chat.get("id")
        kind = str(path[-1]).removesuffix("Chunk").removesuffix("Message") if isinstance(path, list) else None
    extra = inner.get("additional_kwargs")
    # Where LangChain has parsed the calls, the provider's own stand beside them.
    given = {key: value for key, value in inner.items() if value or key != "tool_calls"}
    return {**(extra if isinstance(extra, dict) else {}), "role": kind, **given}


def _read_role(role: Any) -> str:
    if not isinstance(role, str):
        raise Unreadable(DropReason.MALFORMED)
    name = role.casefold().rpartition(".")[2].removesuffix("messagechunk").removesuffix("message")
    name = name.replace("_", "-")
    if name not in ROLES:
        raise Unreadable(DropReason.MALFORMED)
    return ROLES[name]


def _read_item(item: dict[str, Any]) -> list[RecordedMessage] | None:
    """Read an item of the Responses API that has no role; None for anything else."""
    kind = item.get("type")
    if not isinstance(kind, str):
        return None
    if kind == "function_call":
        call = build_call(
            item.get("call_id") or item.get("id"), item.get("name"), item.get("arguments"), shown=True
        )
        return [RecordedMessage(role="assistant", calls=(call,))]
    if kind == "function_call_output":
        return [_to_tool_message(read_result_part(item))]
    if kind == "reasoning":
        thoughts = [part.text for part in read_parts([item]) if isinstance(part, Thought)]
        return [RecordedMessage(role="assistant", reasoning="\n".join(thoughts) or None)]
    check_expressible(kind)
    return None


def _unwrap_text(part: Part) -> list[Part]:
    text = part.text if isinstance(part, Text | Result) else None
    written = find_parts_in_text(text) if text is not None else None
    if written is None:
        return [part]
    parts = read_parts(written)
    if isinstance(part, Result):
        if not all(is_text_alone(inner) for inner in written if inner["type"] in TEXT_TYPES):
            return [part]
        return [replace(part, text="\n".join(inner.text for inner in parts if isinstance(inner, Text)))]
    return parts


def _read_listed_calls(chat: dict[str, Any]) -> list[RecordedCall]:
    calls = chat.get("tool_calls") or []
    if not calls and chat.get("function_call"):
        calls = [{"function": chat["function_call"]}]
    if not isinstance(calls, list):
        raise Unreadable(DropReason.MALFORMED)
    return [_read_listed_call(call) for call in calls]


def _read_listed_call(call: Any) -> RecordedCall:
    if not isinstance(call, dict):
        raise Unreadable(DropReason.MALFORMED)
    if call.get("providerExecuted") is True:
        raise Unreadable(DropReason.SERVER_TOOL)
    function = call["function"] if isinstance(call.get("function"), dict) else call
    key = next((key for key in ("arguments", "args", "input", "parameters") if key in function), None)
    name = function.get("name", function.get("toolName"))
    arguments = function[key] if key is not None else None
    return build_call(call.get("id", call.get("toolCallId")), name, arguments, shown=key is not None)


def _merge_calls(of_parts: list[RecordedCall], listed: list[RecordedCall]) -> list[RecordedCall]:
    """Return each call once, where a message shows its calls among the parts and beside them."""
    named = list(dict.fromkeys(call for call in of_parts if call.name))
    if not all(call.name for call in of_parts) and not listed:
        raise Unreadable(DropReason.NOT_WHOLE)
    if not named or not listed:
        return named or listed
    known = [(call.id, call.name) for call in listed]
    if any((call.id, call.name) not in known for call in named):
        raise Unreadable(DropReason.TOOL_CALLS_DIFFER)
    return listed


def _read_reasoning(chat: dict[str, Any], parts: Sequence[Part]) -> str | None:
    thoughts = [part.text for part in parts if isinstance(part, Thought) and part.text]
    written = next((chat[key] for key in REASONING_KEYS if chat.get(key)), None)
    if not thoughts and isinstance(written, str):
        thoughts = [written]
    return "\n".join(thoughts) or None


def _split_at_results(message: RecordedMessage, parts: Sequence[Part]) -> list[RecordedMessage]:
    """Return the message's results and texts as messages of their own, in order."""
    split: list[RecordedMessage] = []
    waiting: list[str] = []
    for part in parts:
        if isinstance(part, Text):
            waiting.append(part.text)
        elif isinstance(part, Result):
            if waiting:
                split.append(mark_flaw(RecordedMessage(role=message.role, texts=tuple(waiting))))
                waiting = []
            result = _to_tool_message(part)
            split.append(result if result.call_id else replace(result, call_id=message.call_id))
    if waiting:
        split.append(mark_flaw(RecordedMessage(role=message.role, texts=tuple(waiting))))
    if message.calls:
        split.append(RecordedMessage(role=message.role, calls=message.calls))
    return split


def _to_tool_message(result: Result) -> RecordedMessage:
    texts = None if result.text is None else (result.text,)
    return mark_flaw(RecordedMessage(role="tool", texts=texts, call_id=result.call_id, name=result.name))


def _take_out_thoughts(message: RecordedMessage) -> RecordedMessage:
    """Take thoughts out of the text of an assistant's message, where a server left them in it."""
    if message.role != "assistant" or message.reasoning is not None or not message.texts:
        return message
    thoughts, answer = split_thoughts(message.text)
    return message if thoughts is None else replace(message, reasoning=thoughts, texts=(answer,))


def mark_flaw(message: RecordedMessage) -> RecordedMessage:
    """Return the message; where its texts are not what was said, with the flaw in their place."""
    texts = message.texts
    if any(map(is_placeholder, texts or ())) or any(_hides_arguments(call) for call in message.calls):
        return replace(message, texts=None, flaw=DropReason.REDACTED)
    if texts is None:
        is_empty = not message.calls and message.reasoning is None
        return replace(message, flaw=DropReason.NOT_WHOLE) if is_empty else message
    if message.role != "tool" and any(find_parts_in_text(text) or is_python_repr(text) for text in texts):
        return replace(message, texts=None, flaw=DropReason.SERIALISED)
    return message


def _hides_arguments(call: RecordedCall) -> bool:
    arguments = call.arguments or ""
    return is_placeholder(arguments) or any(f'"{placeholder}"' in arguments for placeholder in PLACEHOLDERS)


def to_message(recorded: RecordedMessage) -> Message:
    """Convert a message that is read in full. Raises Unreadable with its flaw where it has one."""
    if recorded.flaw is not None:
        raise Unreadable(recorded.flaw)
    return Message(
        role=recorded.role,
        content=recorded.text,
        tool_calls=tuple(
            ToolCall(id=call.id, name=call.name, arguments=call.arguments or "{}") for call in recorded.calls
        ),
        tool_call_id=recorded.call_id,
        name=recorded.name,
        reasoning=recorded.reasoning,
    )
