"""Is an answer right, and is it valid? Both depend on the target's task."""

import json
import re
from collections.abc import Iterator
from typing import Any

from extractors.examples.thoughts import get_answer
from extractors.examples.types import Message
from extractors.values import Value
from trainers.planning.method_rules import Task

ParsedToolCall = tuple[str, str]
"""A tool's name, and its arguments as canonical JSON."""


class Scorer(Value):
    """The scorer of a target's answers."""

    task: Task
    labels: frozenset[str] = frozenset()
    """The output space of a classification, normalised."""

    def is_correct(self, text: str, *, ended: bool, gold: Message) -> bool:
        """Return True if `text`, an answer without thoughts, equals the gold one.

        An answer that was cut off at the limit never does.
        """
        if not ended:
            return False
        if gold.tool_calls:
            return list(find_tool_calls(text)) == [
                _parse_tool_call(c.name, c.arguments) for c in gold.tool_calls
            ]
        return self.is_same(text, get_answer(gold))

    def is_valid(self, text: str, *, ended: bool) -> bool:
        """Return True for an answer in the output space (classification) or JSON (extraction).

        For other tasks, an answer is valid if it is not empty and was not cut off.
        """
        if self.task == "classification":
            return normalise_label(text) in self.labels
        if self.task == "extraction":
            return ended and read_json(text) is not None
        return ended and bool(text.strip())

    def is_same(self, one: str, other: str) -> bool:
        """Return True if two answers are equal: labels without case and quotes, JSON by value, texts but for
        white space.
        """
        if self.task == "classification":
            return normalise_label(one) == normalise_label(other)
        if self.task == "extraction" and (found := read_json(one)) is not None:
            # As text, since Python takes true for 1.
            return _to_canonical(found) == _to_canonical(read_json(other))
        return one.split() == other.split()


def build_scorer(task: Task, output_space: tuple[str, ...], trained_labels: tuple[str, ...]) -> Scorer:
    """Return the scorer of a target; without an `output_space`, its labels are those seen in training."""
    return Scorer(task=task, labels=frozenset(map(normalise_label, output_space or trained_labels)))


def read_json(text: str) -> dict[str, Any] | list[Any] | None:
    """Return the object or array that `text` is, also inside a Markdown fence; None if it is neither."""
    fenced = re.fullmatch(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", text, re.DOTALL)
    try:
        found = json.loads(fenced[1] if fenced else text, parse_float=_parse_number)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict | list) else None


def _parse_number(text: str) -> float:
    """Return an int for a whole number: 1.0 is 1."""
    number = float(text)
    return int(number) if number.is_integer() else number


def _to_canonical(found: Any) -> str:
    return json.dumps(found, sort_keys=True)


def normalise_label(text: str) -> str:
    """Return the label in lower case, with single spaces, without surrounding quotes or a final full stop."""
    return " ".join(text.split()).strip("\"'`.").strip().casefold()


def find_tool_calls(text: str) -> Iterator[ParsedToolCall]:
    """Yield the tool calls that a model wrote as JSON objects with name and arguments, within any text.

    Hermes, Qwen and Llama 3 write `{"name": …, "arguments" or "parameters": {…}}`.
    """
    decoder, position = json.JSONDecoder(), 0
    while (brace := re.compile(r"\{").search(text, position)) is not None:
        try:
            found, position = decoder.raw_decode(text, brace.start())
        except (ValueError, RecursionError):
            position = brace.end()
            continue
        arguments = found.get("arguments", found.get("parameters"))
        if isinstance(found.get("name"), str) and arguments is not None:
            yield _parse_tool_call(
                found["name"], arguments if isinstance(arguments, str) else json.dumps(arguments)
            )


def _parse_tool_call(name: str, arguments: str) -> ParsedToolCall:
    try:
        found = json.loads(arguments) if arguments.strip() else None
        # Templates render no arguments as an empty object.
        return name, _to_canonical({} if found is None else found)
    except (ValueError, RecursionError):
        return name, arguments
