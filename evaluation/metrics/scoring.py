"""Is an answer right, and is it an answer at all? By the target's task."""

import json
import re
from collections.abc import Iterator
from typing import Any

from extractors.examples.types import Message
from extractors.values import Value
from trainers.planning.method_rules import Task

ParsedToolCall = tuple[str, str]
"""Name of a tool, and its arguments as canonical JSON."""


class Scorer(Value):
    """How answers are scored for a target."""

    task: Task
    labels: frozenset[str] = frozenset()
    """The output space of a classification, normalised."""

    def correct(self, text: str, *, ended: bool, gold: Message) -> bool:
        """Whether an answer that says `text` gives the gold one; one cut off at the limit never does."""
        if not ended:
            return False
        if gold.tool_calls:
            return list(find_tool_calls(text)) == [
                _parse_tool_call(c.name, c.arguments) for c in gold.tool_calls
            ]
        return self.same(text, gold.content)

    def valid(self, text: str, *, ended: bool) -> bool:
        """In the output space (classification), JSON (extraction), else not empty and ended by itself."""
        if self.task == "classification":
            return normalise_label(text) in self.labels
        if self.task == "extraction":
            return ended and read_json(text) is not None
        return ended and bool(text.strip())

    def same(self, one: str, other: str) -> bool:
        """Whether two answers say the same: labels without case and quotes, JSON by its values, texts but
        for white space.
        """
        if self.task == "classification":
            return normalise_label(one) == normalise_label(other)
        if self.task == "extraction" and (found := read_json(one)) is not None:
            # As text, since Python takes true for 1.
            return _to_canonical(found) == _to_canonical(read_json(other))
        return one.split() == other.split()


def build_scorer(task: Task, output_space: tuple[str, ...], trained_labels: tuple[str, ...]) -> Scorer:
    """The scorer of a target; without an `output_space`, its labels are those seen in training."""
    return Scorer(task=task, labels=frozenset(map(normalise_label, output_space or trained_labels)))


def read_json(text: str) -> dict[str, Any] | list[Any] | None:
    """The object or array that `text` is, also inside a Markdown fence; None where it is neither."""
    fenced = re.fullmatch(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", text, re.DOTALL)
    try:
        found = json.loads(fenced[1] if fenced else text, parse_float=_parse_number)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict | list) else None


def _parse_number(text: str) -> float:
    """1.0 is 1."""
    number = float(text)
    return int(number) if number.is_integer() else number


def _to_canonical(found: Any) -> str:
    return json.dumps(found, sort_keys=True)


def normalise_label(text: str) -> str:
    """Lower case, single spaces, without surrounding quotes or a closing full stop."""
    return " ".join(text.split()).strip("\"'`.").strip().casefold()


def find_tool_calls(text: str) -> Iterator[ParsedToolCall]:
    """Tool calls that a model wrote as JSON objects with a name and arguments, whatever is around them.

    Hermes, Qwen and Llama 3 write them so: `{"name": …, "arguments" or "parameters": {…}}`.
    """
    decoder, position = json.JSONDecoder(), 0
    while (brace := re.compile(r"\{").search(text, position)) is not None:
        try:
            found, position = decoder.raw_decode(text, brace.start())
        except json.JSONDecodeError:
            position = brace.end()
            continue
        arguments = found.get("arguments", found.get("parameters"))
        if isinstance(found.get("name"), str) and arguments is not None:
            yield _parse_tool_call(
                found["name"], arguments if isinstance(arguments, str) else json.dumps(arguments)
            )


def _parse_tool_call(name: str, arguments: str) -> ParsedToolCall:
    try:
        return name, _to_canonical(json.loads(arguments))
    except json.JSONDecodeError:
        return name, arguments
