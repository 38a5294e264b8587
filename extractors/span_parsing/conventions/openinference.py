"""OpenInference attributes, as Phoenix nests them: messages, tools, prompts, answers.

Specification: https://github.com/Arize-ai/openinference/blob/main/spec/semantic_conventions.md
"""

import re
from dataclasses import replace
from typing import Any

from extractors.phoenix.spans import Span
from extractors.span_parsing.conventions import genai
from extractors.span_parsing.conventions.bodies import find_tools, read_request_body, read_response_body
from extractors.span_parsing.drop_reasons import DropReason, Unreadable, read_each
from extractors.span_parsing.messages.chat_messages import mark_flaw, read_chat, read_content
from extractors.span_parsing.messages.serialised import is_rendered
from extractors.span_parsing.messages.tools import read_tools
from extractors.span_parsing.nested_attributes import (
    get_path,
    may_have_lost_attributes,
    parse_body,
    parse_json,
    to_entries,
)
from extractors.span_parsing.recorded import AnswerRecord, RecordedMessage, RequestRecord, join_items

RESULTS_AND_WORDS = frozenset({"tool", "user"})
"""Roles of the messages that tracers make one: the results of a turn's tools, and what the user says next."""
TEMPLATE_VARIABLE = re.compile(r"\{\{\s*(\w+)\s*\}\}|\{(\w+)\}")


def read_listed_request(span: Span) -> RequestRecord | None:
    """Read `llm.input_messages` and `llm.tools`; None where there are no messages.

    Raises Unreadable; TRUNCATED where a message has lost its role.
    """
    entries = _list_messages(span.attributes, "input_messages")
    if not entries:
        return None
    is_mapped = genai.count_mapped_messages(span) == len(entries)
    # Phoenix closes the gap that dropped messages leave, so what was set before them must be there.
    lacks_beginning = not is_mapped and span.kind == "UNKNOWN"
    may_lack_beginning = (
        not is_mapped
        and not lacks_beginning
        and get_path(span.attributes, "input.value") is None
        and may_have_lost_attributes(span.attributes)
    )
    if not all(isinstance(message := entry.get("message"), dict) and "role" in message for entry in entries):
        raise Unreadable(DropReason.TRUNCATED)
    messages = join_items(_read_messages(entries))
    if is_mapped:
        # Phoenix's own mapping of GenAI messages leaves out results that stand beside a text.
        messages = tuple(
            each if each.role == "assistant" else replace(each, stands_for=RESULTS_AND_WORDS)
            for each in messages
        )
    return RequestRecord(
        messages,
        _read_tools(span.attributes),
        may_lack_beginning=may_lack_beginning,
        lacks_beginning=lacks_beginning,
    )


def read_body_request(span: Span) -> RequestRecord | None:
    """Read the JSON body in `input.value`; None where it is no chat request. Raises Unreadable."""
    record = read_request_body(parse_body(span.attributes, "input"))
    if record is not None and not record.tools:
        return replace(record, tools=_read_tools(span.attributes))
    return record


def read_plain_request(span: Span) -> RequestRecord | None:
    """Read a prompt that is one text: `llm.prompts`, `input.value` as text, or a filled template."""
    text = (
        _read_completion_prompt(span.attributes)
        or _read_plain_text(span.attributes, "input")
        or _fill_template(span.attributes)
    )
    if not text:
        return None
    if is_rendered(text):
        raise Unreadable(DropReason.RENDERED_OTHERWISE)
    message = mark_flaw(RecordedMessage(role="user", texts=(text,)))
    return RequestRecord((message,), _read_tools(span.attributes))


def read_listed_answer(span: Span) -> AnswerRecord | None:
    """Read `llm.output_messages`, or a completion's `llm.choices`. Raises Unreadable."""
    entries = _list_messages(span.attributes, "output_messages")
    if entries:
        # An answer is the last thing that is set: a role that is missing was never written.
        messages = _read_messages(entries, role="assistant")
        return AnswerRecord(tuple(messages), are_choices=None)
    choices = get_path(span.attributes, "llm.choices")
    if choices:
        texts = [read_content(get_path(entry, "completion.text")) for entry in to_entries(choices)]
        messages = [mark_flaw(RecordedMessage(role="assistant", texts=(text,))) for text in texts]
        return AnswerRecord(tuple(messages), are_choices=True)
    return None


def read_body_answer(span: Span) -> AnswerRecord | None:
    """Read the JSON response in `output.value`; None where it is none that is known. Raises Unreadable."""
    return read_response_body(parse_body(span.attributes, "output"))


def read_plain_answer(span: Span) -> AnswerRecord | None:
    """Read `output.value` where it is the answer's text."""
    text = _read_plain_text(span.attributes, "output")
    if not text:
        return None
    message = mark_flaw(RecordedMessage(role="assistant", texts=(text,)))
    return AnswerRecord((message,), are_choices=False)


def _list_messages(attributes: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the entries of a list of messages. Raises Unreadable."""
    listed = get_path(attributes, f"llm.{name}")
    if isinstance(listed, str):
        # A tracer of Strands writes the list as one text, too, so that Phoenix cannot nest its entries.
        beside = {key.removeprefix(f"{name}."): entry for key, entry in attributes["llm"].items()}
        listed = {key: entry for key, entry in beside.items() if key.isdecimal()} or listed
    return to_entries(listed) if listed else []


def _read_messages(entries: list[dict[str, Any]], role: str | None = None) -> list[RecordedMessage]:
    """Read listed messages, of which those without a role have `role`."""
    return read_each(entries, lambda entry: _read_message(entry.get("message"), role))


def _read_message(message: Any, role: str | None) -> list[RecordedMessage]:
    if not isinstance(message, dict):
        raise Unreadable(DropReason.TRUNCATED if message is None else DropReason.MALFORMED)
    chat: dict[str, Any] = {"role": role} if role else {}
    chat |= {key: message[key] for key in ("role", "content", "tool_call_id", "name") if key in message}
    if message.get("tool_calls"):
        chat["tool_calls"] = [entry.get("tool_call") for entry in to_entries(message["tool_calls"])]
    elif message.get("function_call_name"):
        arguments = message.get("function_call_arguments_json")
        chat["function_call"] = {"name": message["function_call_name"], "arguments": arguments}
    if chat.get("tool_call_id") and chat.get("role") in ("assistant", "model"):
        # ADK's tracer writes a second result over the next message.
        return [
            RecordedMessage(
                role="assistant",
                call_id=chat["tool_call_id"],
                flaw=DropReason.NOT_WHOLE,
                stands_for=frozenset({"tool", "user", "assistant"}),
            )
        ]
    contents = message.get("contents")
    if not contents:
        return read_chat(chat)
    parts = [_to_part(entry) for entry in to_entries(contents)]
    if chat.get("role") == "user" and chat.get("tool_call_id") and chat.get("content"):
        # Tracers of Anthropic's API keep the last of several results here, and the user's next words there.
        words = read_chat({"role": "user", "content": parts})
        return [*read_chat(chat), *(message for message in words if message.says_something)]
    of_parts = read_chat({**chat, "content": parts})
    if of_parts[0].role == "tool" and len(parts) > 1:
        # pydantic-ai's tracer puts all results of a turn into one message, under the id of the last.
        of_parts = [replace(message, stands_for=RESULTS_AND_WORDS) for message in of_parts]
    if not chat.get("content"):
        return of_parts
    return [_check_same_text(read_chat(chat)[0], of_parts)]


def _check_same_text(stated: RecordedMessage, of_parts: list[RecordedMessage]) -> RecordedMessage:
    """Return a message that has its text twice; one whose two texts differ contradicts itself."""
    shown = "".join(message.text for message in of_parts)
    if shown.strip() and shown.split() != stated.text.split():
        return replace(stated, texts=None, calls=(), flaw=DropReason.TEXTS_DIFFER)
    return replace(of_parts[0], texts=stated.texts, role=stated.role)


def _to_part(entry: dict[str, Any]) -> Any:
    part = entry.get("message_content", {})
    if not isinstance(part, dict):
        return part
    if part.get("type") is None and isinstance(part.get("text"), str):
        return part["text"]
    # An ordered call stands beside its content: {"message_content": {"type": "tool_use"}, "tool_call": …}.
    return {**part, **({"tool_call": entry["tool_call"]} if "tool_call" in entry else {})}


def _read_tools(attributes: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """Read `llm.tools`, or the tools among the parameters, where LangChain's tracer keeps them."""
    listed = get_path(attributes, "llm.tools")
    if listed:
        return read_tools([_to_definition(entry.get("tool")) for entry in to_entries(listed)])
    return find_tools(parse_json(get_path(attributes, "llm.invocation_parameters")))


def _to_definition(tool: Any) -> Any:
    """Return the definition in an entry of `llm.tools`: pydantic-ai's keeps name and schema apart."""
    written = get_path(tool, "json_schema")
    schema = parse_json(written)
    if isinstance(schema, dict) and isinstance(tool.get("name"), str) and schema.get("type") == "object":
        return {"name": tool["name"], "description": tool.get("description"), "parameters": schema}
    return written


def _read_completion_prompt(attributes: dict[str, Any]) -> str | None:
    prompts = get_path(attributes, "llm.prompts")
    if not isinstance(prompts, list) or not prompts:
        return None
    if any(get_path(prompt, "prompt.token_ids") for prompt in prompts):
        raise Unreadable(DropReason.NOT_TEXT)
    if len(prompts) > 1:
        raise Unreadable(DropReason.SEVERAL_ANSWERS)
    text = prompts[0] if isinstance(prompts[0], str) else get_path(prompts[0], "prompt.text")
    return text if isinstance(text, str) else None


def _read_plain_text(attributes: dict[str, Any], side: str) -> str | None:
    """Return `input.value` or `output.value` where it is text, which is OpenInference's default MIME type."""
    value, mime_type = get_path(attributes, f"{side}.value"), get_path(attributes, f"{side}.mime_type")
    if not isinstance(value, str) or mime_type not in (None, "text/plain"):
        return None
    return value


def _fill_template(attributes: dict[str, Any]) -> str | None:
    """Return the prompt template with its variables filled in; None where one is missing."""
    template = get_path(attributes, "llm.prompt_template.template")
    variables = parse_json(get_path(attributes, "llm.prompt_template.variables"))
    if not isinstance(template, str) or not isinstance(variables, dict):
        return None
    names = [match[1] or match[2] for match in TEMPLATE_VARIABLE.finditer(template)]
    if not all(isinstance(variables.get(name), str | int | float) for name in names):
        return None
    return TEMPLATE_VARIABLE.sub(lambda match: str(variables[match[1] or match[2]]), template)
