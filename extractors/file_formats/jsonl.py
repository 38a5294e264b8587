"""One example as a JSON object that other tools read, and back without loss.

SFTExample          prompt, completion                 TRL, conversational
PreferencePair      prompt, chosen, rejected           TRL
UnpairedPreference  prompt, completion, label          TRL (KTO)
Triplet             anchor, positive, negative         sentence-transformers
Trajectory          messages                           TRL, OpenAI

An SFTExample can also be a chat (`messages`, the last one to learn), an instruction (Alpaca's
`instruction`, `input`, `output`, with `system` and `history` as LLaMA-Factory adds them) or a
classification (`text`, `label`). Beside these fields stand those that say where it comes from.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, cast

from pydantic import ValidationError

from extractors.errors import LearndError
from extractors.examples.prompt_keys import compute_prompt_keys
from extractors.examples.types import (
    Message,
    PreferencePair,
    SFTExample,
    ToolCall,
    Trajectory,
    Triplet,
    UnpairedPreference,
)
from extractors.span_parsing.chat_messages import ROLES, read_content
from extractors.span_parsing.drop_reasons import Unreadable
from extractors.values import Record, Value

AnyExample = SFTExample | PreferencePair | UnpairedPreference | Triplet | Trajectory
Line = dict[str, Any]


class Form(StrEnum):
    """How a file is written."""

    JSONL = "jsonl"
    PARQUET = "parquet"
    CHAT = "chat"
    INSTRUCTION = "instruction"
    CLASSIFICATION = "classification"


class LineInvalid(LearndError):
    """What is wrong with one item of a file."""


class NotExpressible(LearndError):
    """A form has no place for what an example holds."""


IN_WORDS: dict[type[Value], str] = {
    SFTExample: "SFT examples",
    PreferencePair: "preference pairs",
    UnpairedPreference: "votes",
    Triplet: "triplets",
    Trajectory: "conversations",
}
NEEDS: dict[tuple[type[Value], Form], tuple[str, ...]] = {
    (SFTExample, Form.JSONL): ("prompt", "completion"),
    (SFTExample, Form.CHAT): ("messages",),
    (SFTExample, Form.INSTRUCTION): ("instruction", "output"),
    (SFTExample, Form.CLASSIFICATION): ("text", "label"),
    (PreferencePair, Form.JSONL): ("prompt", "chosen", "rejected"),
    (UnpairedPreference, Form.JSONL): ("prompt", "completion", "label"),
    (Triplet, Form.JSONL): ("anchor", "positive", "negative"),
    (Trajectory, Form.JSONL): ("messages",),
}
"""The fields that a line must have."""


def to_line(record: Value, form: Form) -> Line:
    """The JSON object. Raises NotExpressible where `form` would lose something."""
    kind = type(record)
    checked_form(kind, form)
    shown = _WRITERS[kind, form](record)
    line = {**shown, "id": cast(AnyExample, record).id, **_other_fields(record)}
    if form is not Form.JSONL and not _is_read_as(record, line, form):
        raise NotExpressible(
            f"the form {form.value!r} has no place for what it holds (several turns, tool calls, names, or "
            f"messages out of the usual order); write it as {Form.JSONL.value!r}"
        )
    return line


def from_line(kind: type[Record], line: Any, form: Form, *, now: datetime, system: str | None) -> Record:
    """The record that a line holds. Raises LineInvalid.

    `system` stands in for a system prompt where there is none, `now` for a missing `started_at`.
    Fields that are not known are ignored.
    """
    _check_fields(kind, line, form)
    fields = {name: line[name] for name in kind.model_fields if line.get(name) is not None}
    fields |= {"started_at": fields.get("started_at", now), **_READERS[kind, form](line)}
    if "tools" in kind.model_fields:
        fields["tools"] = _tools(line.get("tools"))
    fields |= _with_system(fields, system)
    try:
        record = kind.model_validate({**_derived(fields), **fields})
        if line.get("id") not in (None, cast(AnyExample, record).id):
            # Somebody changed the line: its keys must be those of what it says now.
            record = kind.model_validate({**fields, **_derived(fields)})
    except ValidationError as wrong:
        raise LineInvalid(described(wrong)) from None
    return checked(record)


def checked_form(kind: type[Value], form: Form) -> None:
    """Raises NotExpressible where records of `kind` have no such form."""
    if (kind, form) not in NEEDS:
        raise NotExpressible(
            f"{IN_WORDS[kind]} cannot be written or read as {form.value!r}; "
            f"take {Form.JSONL.value!r} or {Form.PARQUET.value!r}"
        )


def checked(record: Record) -> Record:
    """`record`, if it can be learned from and its time says in which zone it is. Raises LineInvalid."""
    if cast(AnyExample, record).started_at.tzinfo is None:
        raise LineInvalid("started_at has no time zone; write it as 2026-03-01T12:00:00Z")
    if isinstance(record, Trajectory) and record.outcome == "rejected":
        raise LineInvalid("the conversation was rejected, so nothing is learned from it; leave it out")
    return record


def described(wrong: ValidationError) -> str:
    """What is wrong, without what was there: it may be anybody's text."""
    return ", ".join(
        f"{'.'.join(str(step) for step in error['loc'])}: {error['msg']}"
        for error in wrong.errors(include_url=False, include_input=False, include_context=False)
    )


# ---- writing


def _other_fields(record: Value) -> Line:
    """What the form does not show: where the record comes from. Tools are JSON text, which TRL reads."""
    fields = record.model_dump(mode="json", exclude=_SHOWN[type(record)] | {"tools"})
    tools = getattr(record, "tools", ())
    return {**({"tools": json.dumps(tools, ensure_ascii=False)} if tools else {}), **fields}


def _chats(messages: tuple[Message, ...]) -> list[Line]:
    return [message.to_chat() for message in messages]


def _sft(example: SFTExample) -> Line:
    return {"prompt": _chats(example.prompt), "completion": [example.completion.to_chat()]}


def _chat(example: SFTExample) -> Line:
    return {"messages": _chats((*example.prompt, example.completion))}


def _instruction(example: SFTExample) -> Line:
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


def _classification(example: SFTExample) -> Line:
    system = [message.content for message in example.prompt if message.role == "system"]
    return {
        "text": example.prompt[-1].content if example.prompt else "",
        "label": example.completion.content,
        **({"system": system[0]} if system else {}),
    }


def _pair(pair: PreferencePair) -> Line:
    answers = {"chosen": [pair.chosen.to_chat()], "rejected": [pair.rejected.to_chat()]}
    return {"prompt": _chats(pair.prompt), **answers}


def _vote(vote: UnpairedPreference) -> Line:
    completion = [vote.completion.to_chat()]
    return {"prompt": _chats(vote.prompt), "completion": completion, "label": vote.desirable}


def _triplet(triplet: Triplet) -> Line:
    texts = {"anchor": triplet.query, "positive": triplet.positive.text, "negative": triplet.negative.text}
    return {**texts, "positive_id": triplet.positive.id, "negative_id": triplet.negative.id}


def _trajectory(trajectory: Trajectory) -> Line:
    return {"messages": _chats(trajectory.messages)}


_WRITERS: dict[tuple[type[Value], Form], Callable[[Any], Line]] = {
    (SFTExample, Form.JSONL): _sft,
    (SFTExample, Form.CHAT): _chat,
    (SFTExample, Form.INSTRUCTION): _instruction,
    (SFTExample, Form.CLASSIFICATION): _classification,
    (PreferencePair, Form.JSONL): _pair,
    (UnpairedPreference, Form.JSONL): _vote,
    (Triplet, Form.JSONL): _triplet,
    (Trajectory, Form.JSONL): _trajectory,
}
_SHOWN = {
    SFTExample: {"prompt", "completion"},
    PreferencePair: {"prompt", "chosen", "rejected"},
    UnpairedPreference: {"prompt", "completion", "desirable"},
    Triplet: {"query", "positive", "negative"},
    Trajectory: {"messages"},
}


def _is_read_as(record: Value, line: Line, form: Form) -> bool:
    try:
        return from_line(type(record), line, form, now=datetime.now(UTC), system=None) == record
    except LineInvalid:
        return False


# ---- reading


def _check_fields(kind: type[Value], line: Any, form: Form) -> None:
    checked_form(kind, form)
    if not isinstance(line, dict):
        raise LineInvalid(f"it is no JSON object, but {_type_name(line)}")
    missing = [name for name in NEEDS[kind, form] if name not in line]
    if missing:
        alike = [found for found in NEEDS if all(name in line for name in NEEDS[found])]
        other = max(alike, key=lambda found: len(NEEDS[found]), default=None)
        hint = f"; this looks like {IN_WORDS[other[0]]} in the form {other[1].value!r}" if other else ""
        raise LineInvalid(f"it has no {' and no '.join(missing)}{hint}")
    if (kind, form) == (SFTExample, Form.JSONL) and isinstance(line.get("label"), bool):
        # A vote against an answer must not become an answer to learn.
        raise LineInvalid(f"it has a label: these are {IN_WORDS[UnpairedPreference]}, not {IN_WORDS[kind]}")
    if (kind, form) == (SFTExample, Form.CHAT) and "learned" in line:
        raise LineInvalid(
            f"it says which turns to learn: these are {IN_WORDS[Trajectory]}, not {IN_WORDS[kind]}"
        )


def _derived(fields: Line) -> Line:
    """What another tool does not write: the keys of prompts, and that all answers are to be learned."""
    answers = (at for at, said in enumerate(fields.get("messages", ())) if said.role == "assistant")
    learned = {"learned": fields.get("learned", tuple(answers))} if "messages" in fields else {}
    return compute_prompt_keys(fields) | learned


def _read_sft(line: Line) -> Line:
    return {"prompt": _prompt(line), "completion": _answer(line, "completion")}


def _read_chat(line: Line) -> Line:
    *prompt, completion = _messages(line, "messages")
    if completion.role != "assistant" or not prompt:
        raise LineInvalid("messages do not end with an answer of the assistant to something")
    return {"prompt": tuple(prompt), "completion": completion}


def _read_instruction(line: Line) -> Line:
    system, context = (_text(line, name) if line.get(name) else "" for name in ("system", "input"))
    prompt = [Message(role="system", content=system)] if system else []
    for turn in line.get("history") or ():
        if not isinstance(turn, list) or len(turn) != 2 or not all(isinstance(said, str) for said in turn):
            raise LineInvalid("history is no list of pairs [what the user said, what the assistant said]")
        prompt += [Message(role="user", content=turn[0]), Message(role="assistant", content=turn[1])]
    asked = _text(line, "instruction") + (f"\n{context}" if context else "")
    prompt.append(Message(role="user", content=asked))
    return {"prompt": tuple(prompt), "completion": _answer(line, "output")}


def _read_classification(line: Line) -> Line:
    system = [Message(role="system", content=_text(line, "system"))] if line.get("system") else []
    prompt = (*system, Message(role="user", content=_text(line, "text")))
    return {"prompt": prompt, "completion": Message(role="assistant", content=_text(line, "label"))}


def _read_pair(line: Line) -> Line:
    return {
        "prompt": _prompt(line),
        "chosen": _answer(line, "chosen"),
        "rejected": _answer(line, "rejected"),
        "preferred_by": line.get("preferred_by") or "same prompt",
    }


def _read_vote(line: Line) -> Line:
    if not isinstance(line["label"], bool):
        raise LineInvalid("label is neither true nor false")
    return {
        "prompt": _prompt(line),
        "completion": _answer(line, "completion"),
        "desirable": line["label"],
    }


def _read_triplet(line: Line) -> Line:
    return {
        "query": _text(line, "anchor"),
        "positive": {"id": line.get("positive_id"), "text": _text(line, "positive")},
        "negative": {"id": line.get("negative_id"), "text": _text(line, "negative")},
    }


def _read_trajectory(line: Line) -> Line:
    messages = _messages(line, "messages")
    return {"messages": messages, "outcome": line.get("outcome") or "approved"}


_READERS: dict[tuple[type[Value], Form], Callable[[Line], Line]] = {
    (SFTExample, Form.JSONL): _read_sft,
    (SFTExample, Form.CHAT): _read_chat,
    (SFTExample, Form.INSTRUCTION): _read_instruction,
    (SFTExample, Form.CLASSIFICATION): _read_classification,
    (PreferencePair, Form.JSONL): _read_pair,
    (UnpairedPreference, Form.JSONL): _read_vote,
    (Triplet, Form.JSONL): _read_triplet,
    (Trajectory, Form.JSONL): _read_trajectory,
}


def _with_system(fields: Line, system: str | None) -> Line:
    """What changes where the messages have no system prompt and `system` becomes it."""
    said = "messages" if "messages" in fields else "prompt"
    messages = fields.get(said, ())
    if system is None or not messages or any(message.role == "system" for message in messages):
        return {}
    changed: Line = {said: (Message(role="system", content=system), *messages)}
    if isinstance(fields.get("learned"), list):
        changed["learned"] = [at + 1 for at in fields["learned"] if isinstance(at, int)]
    return changed


def _text(line: Line, name: str) -> str:
    if not isinstance(line[name], str):
        raise LineInvalid(f"{name} is no text, but {_type_name(line[name])}")
    return str(line[name])


def _prompt(line: Line) -> tuple[Message, ...]:
    """A prompt as chat messages, or as text that the user said."""
    if isinstance(line["prompt"], str):
        return (Message(role="user", content=line["prompt"]),)
    return _messages(line, "prompt")


def _messages(line: Line, name: str) -> tuple[Message, ...]:
    if not isinstance(line[name], list) or not line[name]:
        raise LineInvalid(f"{name} is no list of messages")
    return tuple(_message(chat, f"{name}[{at}]") for at, chat in enumerate(line[name]))


def _answer(line: Line, name: str) -> Message:
    """An answer as text, as a chat message, or as a list of one."""
    said = line[name]
    if isinstance(said, str):
        return Message(role="assistant", content=said)
    if isinstance(said, list) and len(said) == 1:
        said = said[0]
    message = _message(said, name)
    if message.role != "assistant":
        raise LineInvalid(f"{name} is said by the {message.role}, not by the assistant")
    return message


def _message(chat: Any, where: str) -> Message:
    if not isinstance(chat, dict):
        raise LineInvalid(f"{where} is no chat message, but {_type_name(chat)}")
    role = chat.get("role")
    if not isinstance(role, str) or role.casefold() not in ROLES:
        raise LineInvalid(f"{where}.role is none of system, user, assistant and tool")
    calls = chat.get("tool_calls") or []
    if not isinstance(calls, list):
        raise LineInvalid(f"{where}.tool_calls is no list, but {_type_name(calls)}")
    try:
        return Message(
            role=ROLES[role.casefold()],
            content=read_content(chat.get("content")),
            tool_calls=tuple(_tool_call(call, f"{where}.tool_calls") for call in calls),
            tool_call_id=chat.get("tool_call_id"),
            name=chat.get("name"),
        )
    except Unreadable as unreadable:
        raise LineInvalid(f"{where}.content is not text: {unreadable}") from None
    except ValidationError as wrong:
        raise LineInvalid(f"{where}.{described(wrong)}") from None


def _tool_call(call: Any, where: str) -> ToolCall:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise LineInvalid(f"{where} holds a call without a function's name")
    arguments = function.get("arguments", "{}")
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return ToolCall(id=call.get("id"), name=function["name"], arguments=arguments)


def _tools(tools: Any) -> tuple[dict[str, Any], ...]:
    """Tool definitions as a list or as JSON text."""
    try:
        read = json.loads(tools) if isinstance(tools, str) else tools
        json.dumps(read, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise LineInvalid("tools is not JSON, or not Unicode") from None
    if not isinstance(read or [], list) or not all(isinstance(tool, dict) for tool in read or []):
        raise LineInvalid("tools is no list of objects")
    return tuple(read or ())


def _type_name(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
