"""The deltas of a streamed message, put together into the message that one piece would have carried.

Servers that are compatible with OpenAI's API differ most in how they stream tool calls. Met in the
field: no `index`, or 0 for every call; no `id`, the same one in every delta, or another one in every
delta; the name, or the whole call, said again; arguments as an object. Where a delta may belong to one
call or to the next, the two are left joined or nameless, which no reader takes for a good call.
"""

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from daemon.gateway.call_arguments import CallArguments
from extractors.examples.thoughts import REASONING_KEYS

TEXT_KEYS = frozenset({"refusal"})
"""Besides the content, the keys whose text comes in fragments."""


class MessageBuilder:
    """Collects the deltas of one choice."""

    def __init__(self) -> None:
        self._message: dict[str, Any] = {"role": "assistant", "content": None}
        # Joined once, in the end: what grows by each delta is copied as often.
        self._growing: dict[str, list[Any]] = {}
        self._contents: list[Any] = []
        self._reasoning: list[str] = []
        self._calls: list[_Call] = []
        self._function_call: _Call | None = None

    def add(self, delta: Mapping[str, Any]) -> None:
        """Add what `delta` says. A key that is not known keeps its last value; lists grow."""
        message = self._message
        if delta.get("content") is not None:
            self._contents.append(delta["content"])
        if reasoning := read_reasoning(delta):
            message.setdefault("reasoning_content", "")
            self._reasoning.append(reasoning)
        for call in keep_objects(delta.get("tool_calls")):
            self._add_call(_Call.read(call))
        if isinstance(function := delta.get("function_call"), dict):
            self._add_function_call(_Call.read({"function": function}))
        for key, value in delta.items():
            if key in {"content", "tool_calls", "function_call", *REASONING_KEYS} or value is None:
                continue
            self._add_value(key, value)

    def build(self) -> dict[str, Any]:
        """Return the message, in the form of an answer in one piece."""
        grown = {key: _join_pieces(pieces) for key, pieces in self._growing.items()}
        message = {**self._message, **grown, "content": _join_contents(self._contents)}
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        if calls := self._list_calls():
            message["tool_calls"] = [call.to_json() for call in calls]
        if self._function_call:
            message["function_call"] = self._function_call.to_json()["function"]
        return message

    def _add_value(self, key: str, value: Any) -> None:
        """Add to a list, or to a text that comes in fragments; other values take the place of the last."""
        if not (isinstance(value, list) or (key in TEXT_KEYS and isinstance(value, str))):
            self._growing.pop(key, None)
            self._message[key] = value
            return
        known = self._growing.get(key)
        if known and type(known[0]) is type(value):
            known.append(value)
        else:
            self._message[key] = None
            self._growing[key] = [value]

    def _add_call(self, said: "_Call") -> None:
        call = self._find_call(said)
        if call is None:
            self._calls.append(said)
        elif call.is_followed_by(said):
            said.name = said.name or (call.name if call.named_again else "")
            self._calls.append(said)
        else:
            call.extend(said)

    def _find_call(self, said: "_Call") -> "_Call | None":
        """Return the call that `said` goes on with, or comes after; None where its index is new."""
        near = [call for call in self._calls if said.index is None or call.index in (said.index, None)]
        known = [call for call in near if said.id is not None and call.id == said.id]
        return next(iter(reversed(known or near)), None)

    def _add_function_call(self, said: "_Call") -> None:
        if self._function_call is None:
            self._function_call = said
        else:
            self._function_call.extend(said)

    def _list_calls(self) -> list["_Call"]:
        calls = [call for call in self._calls if not call.is_empty]
        indices = [call.index for call in calls if call.index is not None]
        if len(indices) < len(calls):
            return calls
        return [call for _, call in sorted(zip(indices, calls, strict=True), key=lambda pair: pair[0])]


@dataclass
class _Call:
    """A tool call as far as it was said."""

    index: int | None
    id: str | None
    kind: str
    name: str
    arguments: CallArguments
    named_again: bool = False
    """The name came again after the arguments were whole: another call of the tool may follow."""

    @classmethod
    def read(cls, delta: Mapping[str, Any]) -> "_Call":
        function = delta.get("function")
        function = function if isinstance(function, dict) else delta
        index, kind, name = delta.get("index"), delta.get("type"), function.get("name")
        return cls(
            index=index if type(index) is int else None,
            id=call_id if isinstance(call_id := delta.get("id"), str) and call_id else None,
            kind=kind if isinstance(kind, str) and kind else "function",
            name=name if isinstance(name, str) else "",
            arguments=CallArguments(to_arguments(function.get("arguments")) or ""),
        )

    @property
    def is_empty(self) -> bool:
        return self.kind == "function" and not self.name and not self.arguments.join().strip()

    def is_followed_by(self, said: "_Call") -> bool:
        """Return True where `said` begins another call, and is no more of this one."""
        if said.id is not None and self.id is not None:
            if said.id == self.id:
                return False
            # Some servers give each delta a new id; only an index shows that they belong together.
            if said.name or said.index is None:
                return True
        if not self.arguments.is_whole:
            return False
        return said.arguments.join().lstrip().startswith("{") or said.name not in ("", self.name)

    def extend(self, said: "_Call") -> None:
        """Add what a later delta of the same call says."""
        self.id = self.id or said.id
        self.index = said.index if self.index is None else self.index
        if said.name == self.name:
            self.named_again = bool(said.name) and self.arguments.is_whole
        else:
            self.name += said.name
        if not (self.arguments.is_whole and said.arguments == self.arguments):
            self.arguments.add(said.arguments.join())

    def to_json(self) -> dict[str, Any]:
        named = {"id": self.id} if self.id is not None else {}
        return {
            **named,
            "type": self.kind,
            "function": {"name": self.name, "arguments": self.arguments.join()},
        }


def read_reasoning(message: Mapping[str, Any]) -> str:
    """Return the thoughts in a message or a delta, or an empty string; two fields hold the same text."""
    for key in REASONING_KEYS:
        value = message.get(key)
        text = value.get("text") if isinstance(value, dict) else value
        if isinstance(text, str) and text:
            return text
    return ""


def to_arguments(arguments: Any) -> str | None:
    """Return a call's arguments as text: what is no text yet, as JSON; None where there are none."""
    if arguments is None or isinstance(arguments, str):
        return arguments
    return json.dumps(arguments, ensure_ascii=False)


def keep_objects(value: Any) -> list[dict[str, Any]]:
    """Return the JSON objects in a list; of anything else, none."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _join_pieces(pieces: list[Any]) -> Any:
    """Return texts as one text, or lists as one list."""
    if isinstance(pieces[0], str):
        return "".join(pieces)
    return [entry for piece in pieces for entry in piece]


def _join_contents(contents: list[Any]) -> Any:
    """Return what the deltas say in all: text if all of it is text, else a list of parts."""
    if not contents:
        return None
    if all(isinstance(content, str) for content in contents):
        return "".join(contents)
    return _join_parts([part for content in contents for part in _to_parts(content)])


def _to_parts(content: Any) -> list[Any]:
    if isinstance(content, list):
        return content
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [content]


def _join_parts(parts: list[Any]) -> list[Any]:
    """Return the parts, with neighbours that are fragments of one text, or of thoughts, made one."""
    joined: list[Any] = []
    for fragment, run in itertools.groupby(parts, _read_fragment):
        if fragment is None:
            joined.extend(run)
            continue
        kind, form = fragment
        pieces = [part[kind] for part in run]
        said = "".join(pieces) if form is str else _join_parts(_join_pieces(pieces))
        joined.append({"type": kind, kind: said})
    return joined


def _read_fragment(part: Any) -> tuple[str, type] | None:
    """Return the kind of a part that may be a fragment, and the form of what it says; None for others."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in ("text", "thinking") or part.keys() != {"type", kind}:
        return None
    form = type(part[kind])
    return (kind, form) if form in (str, list) else None
