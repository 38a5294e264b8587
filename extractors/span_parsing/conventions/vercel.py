"""Vercel's AI SDK: `ai.prompt.messages`, `ai.response.text`, `ai.response.toolCalls`."""

from extractors.phoenix.spans import Span
from extractors.span_parsing.drop_reasons import DropReason, Unreadable
from extractors.span_parsing.messages.chat_messages import read_chat, read_chats
from extractors.span_parsing.messages.tools import read_tools
from extractors.span_parsing.nested_attributes import get_path, parse_json, parse_list
from extractors.span_parsing.recorded import AnswerRecord, RequestRecord, join_choice, join_items


def read_request(span: Span) -> RequestRecord | None:
    """Read `ai.prompt.messages` and `ai.prompt.tools`. Raises Unreadable."""
    messages = parse_list(get_path(span.attributes, "ai.prompt.messages"))
    if not messages:
        return None
    tools = get_path(span.attributes, "ai.prompt.tools")
    return RequestRecord(join_items(read_chats(messages)), read_tools(parse_json(tools)))


def read_answer(span: Span) -> AnswerRecord | None:
    """Read `ai.response`: its text or object, calls and thoughts. Raises Unreadable."""
    response = get_path(span.attributes, "ai.response")
    if not isinstance(response, dict):
        return None
    if response.get("files"):
        raise Unreadable(DropReason.NOT_TEXT)
    text, calls = response.get("text") or response.get("object"), parse_list(response.get("toolCalls"))
    if not text and not calls:
        return None
    chat = {"role": "assistant", "content": text, "tool_calls": calls, "reasoning": response.get("reasoning")}
    return AnswerRecord(join_choice(read_chat(chat)), are_choices=False)
