"""JSON bodies of requests and responses, as providers' SDKs send and get them.

OpenAI's chat completions and Responses, Anthropic's messages, Gemini's contents, Bedrock's Converse,
Ollama, and LangChain's and LlamaIndex's serialised messages.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from extractors.span_parsing.drop_reasons import DropReason, Unreadable
from extractors.span_parsing.messages.chat_messages import read_chat, read_chats
from extractors.span_parsing.messages.provider_searches import rests_on_search
from extractors.span_parsing.messages.serialised import is_rendered
from extractors.span_parsing.messages.tools import read_tools
from extractors.span_parsing.nested_attributes import get_path
from extractors.span_parsing.recorded import (
    AnswerRecord,
    RecordedMessage,
    RequestRecord,
    join_choice,
    join_items,
)

KEPT_BY_PROVIDER = (
    "previous_response_id",
    "conversation",
    "cached_content",
    "cachedContent",
    "config.cached_content",
    "prompt.id",
)
"""Parts of a request that stand for messages which it does not hold."""
CONTINUING = ("continue_final_message", "echo")
"""Parameters of a request whose answer repeats or continues some of it."""
RENDERING = (
    *("documents", "chat_template", "truncate_prompt_tokens", "suffix", "context_management"),
    "previous_input_messages",
)
"""Parameters that make another prompt of the messages than training does."""

COMPLETION_KEYS = frozenset({"text", "reasoning_content", "tool_calls", "logprobs", "citations"})


def check_self_contained(body: Any) -> None:
    """Check that a request, or its parameters, holds all that the model was asked, as it was asked.

    Raises Unreadable: HISTORY_ELSEWHERE, RENDERED_OTHERWISE, NOT_TEXT, PREFILLED.
    """
    if any(get_path(body, path) for path in KEPT_BY_PROVIDER):
        raise Unreadable(DropReason.HISTORY_ELSEWHERE)
    if any(get_path(body, key) is True for key in CONTINUING):
        raise Unreadable(DropReason.PREFILLED)
    is_changed = get_path(body, "add_generation_prompt") is False or get_path(body, "truncation") == "auto"
    if is_changed or any(get_path(body, key) for key in RENDERING):
        raise Unreadable(DropReason.RENDERED_OTHERWISE)
    if get_path(body, "prompt_embeds"):
        raise Unreadable(DropReason.NOT_TEXT)


def read_request_body(body: Any) -> RequestRecord | None:
    """Read the request in a JSON body, or return None where `body` is no request that is known.

    Raises Unreadable.
    """
    if isinstance(body, list):
        # Bedrock's tracer keeps the messages alone.
        return _build_record(body, {}) if _are_messages(body) else None
    if not isinstance(body, dict):
        return None
    messages = body.get("messages")
    if isinstance(messages, list) and messages and isinstance(messages[0], list):
        # LangChain traces a batch; a span has one conversation.
        messages = messages[0] if len(messages) == 1 else [None]
    if isinstance(messages, list):
        _check_printed(messages)
        return _build_record(messages, body) if _are_messages(messages) else None
    if "model" in body and isinstance(body.get("input"), str | list):
        return _read_responses_request(body)
    if isinstance(body.get("contents"), str | list | dict):
        return _read_gemini_request(body)
    return _read_completion_request(body)


def _read_completion_request(body: Mapping[str, Any]) -> RequestRecord | None:
    """Read the request of a text completion, whose prompt may also be tokens, or several texts."""
    prompt = body.get("prompt")
    prompts = prompt if isinstance(prompt, list) else [prompt]
    if body.get("images") or any(isinstance(each, int | list) for each in prompts):
        raise Unreadable(DropReason.NOT_TEXT)
    texts = [each for each in prompts if isinstance(each, str)]
    if not texts or len(texts) < len(prompts):
        return None
    if len(texts) > 1:
        raise Unreadable(DropReason.SEVERAL_ANSWERS)
    if is_rendered(texts[0]):
        raise Unreadable(DropReason.RENDERED_OTHERWISE)
    return _build_record([{"role": "user", "content": texts[0]}], body)


def _are_messages(messages: Sequence[Any]) -> bool:
    return bool(messages) and all(isinstance(message, dict) for message in messages)


def _build_record(messages: Sequence[Any], body: Mapping[str, Any], *, system: Any = None) -> RequestRecord:
    system = body.get("system") if system is None else system
    leading = _read_system(system)
    return RequestRecord(
        messages=join_items((*leading, *read_chats(messages))),
        tools=find_tools(body),
        system_apart=bool(leading),
    )


def find_tools(body: Any) -> tuple[dict[str, Any], ...]:
    """Read the tool definitions in a request or its parameters; none where it has none. Raises Unreadable."""
    if not isinstance(body, dict):
        return ()
    return read_tools(body.get("tools") or body.get("toolConfig") or body.get("functions"))


def _read_system(system: Any) -> list[RecordedMessage]:
    if not system:
        return []
    if isinstance(system, dict) and "parts" in system:
        system = system["parts"]
    return read_chat({"role": "system", "content": system})


def _read_responses_request(body: Mapping[str, Any]) -> RequestRecord | None:
    written = body["input"]
    items = [{"role": "user", "content": written}] if isinstance(written, str) else written
    if not _are_messages(items):
        return None
    instructions = body.get("instructions")
    if isinstance(instructions, list):
        record = _build_record([*instructions, *items], body)
        return record if _are_messages(instructions) else None
    return _build_record(items, body, system=instructions)


def _read_gemini_request(body: Mapping[str, Any]) -> RequestRecord | None:
    config = body.get("config")
    config = {**body, **(config if isinstance(config, dict) else {})}
    contents = body["contents"]
    contents = contents if isinstance(contents, list) else [contents]
    messages: list[dict[str, Any]] = []
    loose: dict[str, Any] = {}
    for content in contents:
        if isinstance(content, dict) and not content.keys().isdisjoint({"role", "parts"}):
            messages.append({"role": "user", **content})
        elif messages and messages[-1] is loose:
            loose["parts"].append(content)
        else:
            loose = {"role": "user", "parts": [content]}
            messages.append(loose)
    if not messages:
        return None
    system = config.get("system_instruction") or config.get("systemInstruction")
    record = _build_record(messages, {}, system=system)
    return RequestRecord(record.messages, find_tools(config), system_apart=record.system_apart)


def read_response_body(body: Any) -> AnswerRecord | None:
    """Read the answer in a JSON response, or return None where `body` is no response that is known.

    Raises Unreadable.
    """
    if isinstance(body, list) and len(body) == 1 and isinstance(body[0], dict):
        body = body[0]
    if isinstance(body, list):
        return _read_choices([_read_choice(choice) for choice in body]) if _are_choices(body) else None
    if not isinstance(body, dict):
        return None
    _check_own_knowledge(body)
    if isinstance(body.get("replies"), list):
        _check_printed(body["replies"])
        return None
    if _are_choices([body]):
        return _read_choices([_read_choice(body)])
    for key, read in (("choices", _read_choice), ("candidates", _read_candidate)):
        if isinstance(body.get(key), list):
            return _read_choices([read(choice) for choice in body[key]])
    if isinstance(body.get("generations"), list):
        batch = body["generations"][0] if len(body["generations"]) == 1 else [None]
        return _read_choices([_read_choice(choice) for choice in batch]) if isinstance(batch, list) else None
    message = _find_message(body)
    return AnswerRecord(join_choice(read_chats(message)), are_choices=False) if message else None


def _find_message(body: Mapping[str, Any]) -> list[Any] | None:
    """Return the items of the one answer in a response."""
    output = body.get("output")
    if isinstance(output, list) and _are_messages(output):
        return output
    if isinstance(output, dict) and isinstance(output.get("message"), dict):
        return [output["message"]]
    if body.get("role") in ("assistant", "model"):
        return [body]
    for key in ("message", "content"):
        message = body.get(key)
        if isinstance(message, dict) and "role" in message:
            return [message]
    return None


def _are_choices(body: Sequence[Any]) -> bool:
    """Return whether DSPy wrote these answers: texts, or objects with a text, calls and thoughts."""
    return bool(body) and all(isinstance(x, str) or _is_completion(x) for x in body)


def _is_completion(choice: Any) -> bool:
    return isinstance(choice, dict) and "text" in choice and choice.keys() <= COMPLETION_KEYS


def _check_own_knowledge(body: Mapping[str, Any]) -> None:
    """Raise Unreadable where the provider searched for its answer, or edited the history before it.

    SERVER_TOOL, RENDERED_OTHERWISE.
    """
    choices = [*_to_list(body.get("choices")), *_to_list(body.get("candidates"))]
    if any(map(rests_on_search, (body, *choices, *(get_path(choice, "message") for choice in choices)))):
        raise Unreadable(DropReason.SERVER_TOOL)
    if get_path(body, "context_management.applied_edits"):
        raise Unreadable(DropReason.RENDERED_OTHERWISE)


def _to_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _check_printed(replies: Sequence[Any]) -> None:
    """Raise Unreadable where Haystack's printed replies tell of what its list leaves out.

    NOT_TEXT, ANSWER_NOT_WHOLE.
    """
    printed = [reply for reply in replies if isinstance(reply, str) and reply.startswith("ChatMessage(")]
    if any(part in reply for reply in printed for part in ("ImageContent(", "FileContent(")):
        raise Unreadable(DropReason.NOT_TEXT)
    if any("TextContent(text='" in reply and "ToolCall(" in reply for reply in printed):
        raise Unreadable(DropReason.ANSWER_NOT_WHOLE)


def _read_choices(choices: Sequence[list[RecordedMessage]]) -> AnswerRecord:
    """Return one message for each choice. Raises Unreadable where a choice has more."""
    joined = [join_choice(choice) for choice in choices]
    if any(len(choice) > 1 for choice in joined):
        raise Unreadable(DropReason.SEVERAL_ANSWERS)
    return AnswerRecord(tuple(message for choice in joined for message in choice), are_choices=True)


def _read_choice(choice: Any) -> list[RecordedMessage]:
    if isinstance(choice, str):
        return [RecordedMessage(role="assistant", texts=(choice,))]
    if not isinstance(choice, dict):
        raise Unreadable(DropReason.MALFORMED)
    message = choice.get("message")
    if isinstance(message, dict):
        return read_chat({"role": "assistant", **message} if "content" in message else message)
    chat = {key: choice[key] for key in ("tool_calls", "reasoning_content") if choice.get(key)}
    return read_chat({"role": "assistant", "content": choice.get("text"), **chat})


def _read_candidate(candidate: Any) -> list[RecordedMessage]:
    content = candidate.get("content") if isinstance(candidate, dict) else None
    if not isinstance(content, dict):
        raise Unreadable(DropReason.MALFORMED)
    return read_chat({"role": "model", **{key: value for key, value in content.items() if value is not None}})
