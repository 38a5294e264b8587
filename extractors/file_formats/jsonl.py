"""One example as a JSON object that other tools read, and back without loss.

SFTExample          prompt, completion                 TRL, conversational
PreferencePair      prompt, chosen, rejected           TRL
UnpairedPreference  prompt, completion, label          TRL (KTO)
Triplet             anchor, positive, negative         sentence-transformers
Trajectory          messages                           TRL, OpenAI

An SFTExample can also be a chat (`messages`, the last one to learn), an instruction (Alpaca's
`instruction`, `input`, `output`, with `system` and `history` as LLaMA-Factory adds them) or a
classification (`text`, `label`). Further fields say where the example comes from.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, cast

from pydantic import ValidationError

from extractors.errors import LearndError
from extractors.examples.prompt_keys import compute_prompt_keys
from extractors.examples.thoughts import REASONING_KEYS
from extractors.examples.types import (
    AnyExample,
    Message,
    PreferencePair,
    SFTExample,
    ToolCall,
    Trajectory,
    Triplet,
    UnpairedPreference,
)
from extractors.span_parsing.drop_reasons import Unreadable
from extractors.span_parsing.messages.chat_messages import ROLES, read_content
from extractors.values import Record, Value

Line = dict[str, Any]

REASONING_FIELDS = (*REASONING_KEYS, "thinking")
"""Names under which tools write an assistant's thoughts."""


class FileForm(StrEnum):
    """The ways to write a file."""

    JSONL = "jsonl"
    PARQUET = "parquet"
    CHAT = "chat"
    INSTRUCTION = "instruction"
    CLASSIFICATION = "classification"


class LineInvalid(LearndError):
    """An item of a file is no example; the message says why."""


class NotExpressible(LearndError):
    """A form has no place for a part of an example."""


KIND_NAMES: dict[type[Value], str] = {
    SFTExample: "SFT examples",
    PreferencePair: "preference pairs",
    UnpairedPreference: "votes",
    Triplet: "triplets",
    Trajectory: "conversations",
}
REQUIRED_FIELDS: dict[tuple[type[Value], FileForm], tuple[str, ...]] = {
    (SFTExample, FileForm.JSONL): ("prompt", "completion"),
    (SFTExample, FileForm.CHAT): ("messages",),
    (SFTExample, FileForm.INSTRUCTION): ("instruction", "output"),
    (SFTExample, FileForm.CLASSIFICATION): ("text", "label"),
    (PreferencePair, FileForm.JSONL): ("prompt", "chosen", "rejected"),
    (UnpairedPreference, FileForm.JSONL): ("prompt", "completion", "label"),
    (Triplet, FileForm.JSONL): ("anchor", "positive", "negative"),
    (Trajectory, FileForm.JSONL): ("messages",),
}
"""The fields that a line must have."""


def to_line(record: Value, form: FileForm) -> Line:
    """Return the record as a JSON object. Raises NotExpressible where `form` would lose something."""
    kind = type(record)
    check_form(kind, form)
    written = _WRITERS[kind, form](record)
    line = {**written, "id": cast(AnyExample, record).id, **_list_other_fields(record)}
    if form is not FileForm.JSONL and not _is_read_as(record, line, form):
        raise NotExpressible(
            f"the form {form.value!r} has no place for what it holds (several turns, tool calls, names, "
            f"thoughts, or messages out of the usual order); write it as {FileForm.JSONL.value!r}"
        )
    return line


def from_line(kind: type[Record], line: Any, form: FileForm, *, now: datetime, system: str | None) -> Record:
    """Return the record that a line holds. Raises LineInvalid.

    `system` stands in for a missing system prompt, `now` for a missing `started_at`. Unknown fields are
    ignored.
    """
    _check_fields(kind, line, form)
    fields = {name: line[name] for name in kind.model_fields if line.get(name) is not None}
    fields |= {"started_at": fields.get("started_at", now), **_READERS[kind, form](line)}
    if "tools" in kind.model_fields:
        fields["tools"] = _read_tools(line.get("tools"))
    fields |= _add_system(fields, system)
    try:
        record = kind.model_validate({**_derive_fields(fields), **fields})
        if line.get("id") not in (None, cast(AnyExample, record).id):
            # Somebody changed the line: its keys must fit the new content.
            record = kind.model_validate({**fields, **_derive_fields(fields)})
    except ValidationError as wrong:
        raise LineInvalid(describe_error(wrong)) from None
    return check_record(record)


def check_form(kind: type[Value], form: FileForm) -> None:
    """Check that records of `kind` have this form. Raises NotExpressible where they do not."""
    if (kind, form) not in REQUIRED_FIELDS:
        raise NotExpressible(
            f"{KIND_NAMES[kind]} cannot be written or read as {form.value!r}; "
            f"take {FileForm.JSONL.value!r} or {FileForm.PARQUET.value!r}"
        )


def check_record(record: Record) -> Record:
    """Return `record` if it can be trained on and its time has a time zone. Raises LineInvalid."""
    if cast(AnyExample, record).started_at.tzinfo is None:
        raise LineInvalid("started_at has no time zone; write it as 2026-03-01T12:00:00Z")
    if isinstance(record, Trajectory) and record.outcome == "rejected":
        raise LineInvalid("the conversation was rejected, so nothing is learned from it; leave it out")
    return record


def describe_error(wrong: ValidationError) -> str:
    """Return the error in words, without the value itself: it may be anybody's text."""
    return ", ".join(
        f"{'.'.join(str(step) for step in error['loc'])}: {error['msg']}"
        for error in wrong.errors(include_url=False, include_input=False, include_context=False)
    )


# ---- writing


def _list_other_fields(record: Value) -> Line:
    """Return the fields that the form does not show: the record's origin, and tools as JSON text for TRL."""
    fields = record.model_dump(mode="json", exclude=_SHOWN[type(record)] | {"tools"})
    tools = getattr(record, "tools", ())
    return {**({"tools": json.dumps(tools, ensure_ascii=False)} if tools else {}), **fields}


def _to_chats(messages: tuple[Message, ...]) -> list[Line]:
    return [message.to_chat() for message in messages]


def _write_sft(example: SFTExample) -> Line:
    return {"prompt": _to_chats(example.prompt), "completion": [example.completion.to_chat()]}


def _write_chat(example: SFTExample) -> Line:
    return {"messages": _to_chats((*example.prompt, example.completion))}


def _write_instruction(example: SFTExample) -> Line:
    system = [message.content for message in example.prompt if message.role == "system"]
    turns = [message.content for message in example.prompt if message.role != "system"]
    history = [list(turn) for turn in zip(turns[:-1:2], turns[1::2], strict=False)]
    return {
        "instruction": turns[-1] if turns else "",
        "input": "",
        "output": example.completion.content,
        **({"system": system[0]} if system else {}),
        **({"history": history} if history else {}),
    }


def _write_classification(example: SFTExample) -> Line:
    system = [message.content for message in example.prompt if message.role == "system"]
    return {
        "text": example.prompt[-1].content if example.prompt else "",
        "label": example.completion.content,
        **({"system": system[0]} if system else {}),
    }


def _write_pair(pair: PreferencePair) -> Line:
    answers = {"chosen": [pair.chosen.to_chat()], "rejected": [pair.rejected.to_chat()]}
    return {"prompt": _to_chats(pair.prompt), **answers}


def _write_vote(vote: UnpairedPreference) -> Line:
    completion = [vote.completion.to_chat()]
    return {"prompt": _to_chats(vote.prompt), "completion": completion, "label": vote.desirable}


def _write_triplet(triplet: Triplet) -> Line:
    texts = {"anchor": triplet.query, "positive": triplet.positive.text, "negative": triplet.negative.text}
    return {**texts, "positive_id": triplet.positive.id, "negative_id": triplet.negative.id}


def _write_trajectory(trajectory: Trajectory) -> Line:
    return {"messages": _to_chats(trajectory.messages)}


_WRITERS: dict[tuple[type[Value], FileForm], Callable[[Any], Line]] = {
    (SFTExample, FileForm.JSONL): _write_sft,
    (SFTExample, FileForm.CHAT): _write_chat,
    (SFTExample, FileForm.INSTRUCTION): _write_instruction,
    (SFTExample, FileForm.CLASSIFICATION): _write_classification,
    (PreferencePair, FileForm.JSONL): _write_pair,
    (UnpairedPreference, FileForm.JSONL): _write_vote,
    (Triplet, FileForm.JSONL): _write_triplet,
    (Trajectory, FileForm.JSONL): _write_trajectory,
}
_SHOWN = {
    SFTExample: {"prompt", "completion"},
    PreferencePair: {"prompt", "chosen", "rejected"},
    UnpairedPreference: {"prompt", "completion", "desirable"},
    Triplet: {"query", "positive", "negative"},
    Trajectory: {"messages"},
}


def _is_read_as(record: Value, line: Line, form: FileForm) -> bool:
    try:
        return from_line(type(record), line, form, now=datetime.now(UTC), system=None) == record
    except LineInvalid:
        return False


# ---- reading


def _check_fields(kind: type[Value], line: Any, form: FileForm) -> None:
    check_form(kind, form)
    if not isinstance(line, dict):
        raise LineInvalid(f"it is no JSON object, but {_name_type(line)}")
    missing = [name for name in REQUIRED_FIELDS[kind, form] if name not in line]
    if missing:
        alike = [found for found in REQUIRED_FIELDS if all(name in line for name in REQUIRED_FIELDS[found])]
        other = max(alike, key=lambda found: len(REQUIRED_FIELDS[found]), default=None)
        hint = (
            f"; this looks like {KIND_NAMES[other[0]]} in the form {other[1].value!r} "
            f"(--format {other[1].value})"
            if other
            else ""
        )
        raise LineInvalid(f"it has no {' and no '.join(missing)}{hint}")
    if (kind, form) == (SFTExample, FileForm.JSONL) and isinstance(line.get("label"), bool):
        # A vote against an answer must not become an answer to learn.
        raise LineInvalid(
            f"it has a label: these are {KIND_NAMES[UnpairedPreference]}, not {KIND_NAMES[kind]}"
        )
    if (kind, form) == (SFTExample, FileForm.CHAT) and "learned" in line:
        raise LineInvalid(
            f"it says which turns to learn: these are {KIND_NAMES[Trajectory]}, not {KIND_NAMES[kind]}"
        )


def _derive_fields(fields: Line) -> Line:
    """Return the fields that other tools do not write: keys of prompts, and that all answers are learned."""
    answers = (at for at, turn in enumerate(fields.get("messages", ())) if turn.role == "assistant")
    learned = {"learned": fields.get("learned", tuple(answers))} if "messages" in fields else {}
    return compute_prompt_keys(fields) | learned


def _read_sft(line: Line) -> Line:
    return {"prompt": _read_prompt(line), "completion": _read_answer(line, "completion")}


def _read_chat(line: Line) -> Line:
    *prompt, completion = _read_messages(line, "messages")
    if completion.role != "assistant" or not prompt:
        raise LineInvalid("messages do not end with an answer of the assistant to something")
    return {"prompt": tuple(prompt), "completion": completion}


def _read_instruction(line: Line) -> Line:
    system, context = (_read_text(line, name) if line.get(name) else "" for name in ("system", "input"))
    prompt = [Message(role="system", content=system)] if system else []
    for turn in line.get("history") or ():
        if not isinstance(turn, list) or len(turn) != 2 or not all(isinstance(text, str) for text in turn):
            raise LineInvalid("history is no list of pairs [what the user said, what the assistant said]")
        prompt += [Message(role="user", content=turn[0]), Message(role="assistant", content=turn[1])]
    asked = _read_text(line, "instruction") + (f"\n{context}" if context else "")
    prompt.append(Message(role="user", content=asked))
    return {"prompt": tuple(prompt), "completion": _read_answer(line, "output")}


def _read_classification(line: Line) -> Line:
    system = [Message(role="system", content=_read_text(line, "system"))] if line.get("system") else []
    prompt = (*system, Message(role="user", content=_read_text(line, "text")))
    return {"prompt": prompt, "completion": Message(role="assistant", content=_read_text(line, "label"))}


def _read_pair(line: Line) -> Line:
    return {
        "prompt": _read_prompt(line),
        "chosen": _read_answer(line, "chosen"),
        "rejected": _read_answer(line, "rejected"),
        "preferred_by": line.get("preferred_by") or "same prompt",
    }


def _read_vote(line: Line) -> Line:
    if not isinstance(line["label"], bool):
        raise LineInvalid("label is neither true nor false")
    return {
        "prompt": _read_prompt(line),
        "completion": _read_answer(line, "completion"),
        "desirable": line["label"],
    }


def _read_triplet(line: Line) -> Line:
    return {
        "query": _read_text(line, "anchor"),
        "positive": {"id": line.get("positive_id"), "text": _read_text(line, "positive")},
        "negative": {"id": line.get("negative_id"), "text": _read_text(line, "negative")},
    }


def _read_trajectory(line: Line) -> Line:
    messages = _read_messages(line, "messages")
    return {"messages": messages, "outcome": line.get("outcome") or "approved"}


_READERS: dict[tuple[type[Value], FileForm], Callable[[Line], Line]] = {
    (SFTExample, FileForm.JSONL): _read_sft,
    (SFTExample, FileForm.CHAT): _read_chat,
    (SFTExample, FileForm.INSTRUCTION): _read_instruction,
    (SFTExample, FileForm.CLASSIFICATION): _read_classification,
    (PreferencePair, FileForm.JSONL): _read_pair,
    (UnpairedPreference, FileForm.JSONL): _read_vote,
    (Triplet, FileForm.JSONL): _read_triplet,
    (Trajectory, FileForm.JSONL): _read_trajectory,
}


def _add_system(fields: Line, system: str | None) -> Line:
    """Return the fields that change where `system` becomes the missing system prompt."""
    name = "messages" if "messages" in fields else "prompt"
    messages = fields.get(name, ())
    if system is None or not messages or any(message.role == "system" for message in messages):
        return {}
    changed: Line = {name: (Message(role="system", content=system), *messages)}
    if isinstance(fields.get("learned"), list):
        changed["learned"] = [at + 1 for at in fields["learned"] if isinstance(at, int)]
    return changed


def _read_text(line: Line, name: str) -> str:
    if not isinstance(line[name], str):
        raise LineInvalid(f"{name} is no text, but {_name_type(line[name])}")
    return str(line[name])


def _read_prompt(line: Line) -> tuple[Message, ...]:
    """Read a prompt: chat messages, or the text of one user's message."""
    if isinstance(line["prompt"], str):
        return (Message(role="user", content=line["prompt"]),)
    return _read_messages(line, "prompt")


def _read_messages(line: Line, name: str) -> tuple[Message, ...]:
    if not isinstance(line[name], list) or not line[name]:
        raise LineInvalid(f"{name} is no list of messages")
    return tuple(_read_message(chat, f"{name}[{at}]") for at, chat in enumerate(line[name]))


def _read_answer(line: Line, name: str) -> Message:
    """Read an answer: text, a chat message, or a list of one."""
    answer = line[name]
    if isinstance(answer, str):
        return Message(role="assistant", content=answer)
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    message = _read_message(answer, name)
    if message.role != "assistant":
        raise LineInvalid(f"{name} is said by the {message.role}, not by the assistant")
    return message


def _read_message(chat: Any, where: str) -> Message:
    if not isinstance(chat, dict):
        raise LineInvalid(f"{where} is no chat message, but {_name_type(chat)}")
    role = chat.get("role")
    if not isinstance(role, str) or role.casefold() not in ROLES:
        raise LineInvalid(f"{where}.role is none of system, user, assistant and tool")
    calls = chat.get("tool_calls") or []
    if not isinstance(calls, list):
        raise LineInvalid(f"{where}.tool_calls is no list, but {_name_type(calls)}")
    try:
        return Message(
            role=ROLES[role.casefold()],
            content=read_content(chat.get("content")),
            tool_calls=tuple(_read_tool_call(call, f"{where}.tool_calls") for call in calls),
            tool_call_id=chat.get("tool_call_id"),
            name=chat.get("name"),
            reasoning=_read_reasoning(chat, where) if ROLES[role.casefold()] == "assistant" else None,
        )
    except Unreadable as unreadable:
        raise LineInvalid(f"{where}.content is not text: {unreadable}") from None
    except ValidationError as wrong:
        raise LineInvalid(f"{where}.{describe_error(wrong)}") from None


def _read_reasoning(chat: Line, where: str) -> str | None:
    """Return the assistant's thoughts, under the first of their usual names that has any; None without."""
    for name in REASONING_FIELDS:
        thoughts = chat.get(name)
        if thoughts is not None and not isinstance(thoughts, str):
            raise LineInvalid(f"{where}.{name} is no text, but {_name_type(thoughts)}")
        if thoughts:
            return thoughts
    return None


def _read_tool_call(call: Any, where: str) -> ToolCall:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise LineInvalid(f"{where} holds a call without a function's name")
    arguments = function.get("arguments", "{}")
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return ToolCall(id=call.get("id"), name=function["name"], arguments=arguments)


def _read_tools(tools: Any) -> tuple[dict[str, Any], ...]:
    """Read tool definitions: a list, or JSON text."""
    try:
        read = json.loads(tools) if isinstance(tools, str) else tools
        json.dumps(read, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise LineInvalid("tools is not JSON, or not Unicode") from None
    if not isinstance(read or [], list) or not all(isinstance(tool, dict) for tool in read or []):
        raise LineInvalid("tools is no list of objects")
    return tuple(read or ())


def _name_type(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
