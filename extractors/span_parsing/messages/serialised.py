"""Texts that hold parts, an object of a program or a whole conversation instead of what was said."""

import ast
import re
from typing import Any

from extractors.span_parsing.nested_attributes import parse_json

PAYLOADS = {
    "text": "text",
    "thinking": "thinking",
    "tool_use": "input",
    "tool_result": "tool_use_id",
    "image_url": "image_url",
    "image": "source",
    "input_text": "text",
    "output_text": "text",
    "document": "source",
}
PRINTED_OBJECT = re.compile(
    r"\s*\[?(\w+Block|\w*Message(Chunk)?|ModelRequest|ModelResponse|\w*Part|Content|ToolCall|ChatCompletion)"
    r"\(\w+=.*\)\]?\s*|content='.*' (additional_kwargs|response_metadata)=.*|\s*<[\w.]+ object at 0x\w+>\s*",
    re.DOTALL,
)

TEMPLATE_MARKS = re.compile(
    r"<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>|<\|(user|assistant|system)\|>|\[INST\]"
    r"|\b(Assistant|AI):\s*\Z"
)
"""Marks between the turns of a conversation that a chat template has rendered."""


def find_parts_in_text(text: str) -> list[Any] | None:
    """Return the parts that `text` is the JSON of, or None where it is no such JSON."""
    start = text.lstrip()[:1]
    if start not in ("[", "{") or '"type"' not in text:
        return None
    parsed = parse_json(text)
    parts = parsed if isinstance(parsed, list) else [parsed]
    if not parts or not all(_is_block(part) for part in parts):
        return None
    return parts


def _is_block(part: Any) -> bool:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        return False
    return PAYLOADS.get(part["type"], "") in part


def is_python_repr(text: str) -> bool:
    """Return whether `text` is a Python object that was printed instead of what it holds."""
    if text.lstrip().startswith(("[{'", "{'")):
        try:
            printed = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return False
        parts = printed if isinstance(printed, list) else [printed]
        return all(_is_block(part) or (isinstance(part, dict) and "role" in part) for part in parts)
    return PRINTED_OBJECT.fullmatch(text) is not None


def is_rendered(text: str) -> bool:
    """Return whether a prompt holds the marks of a chat template: it is a conversation that was rendered."""
    return TEMPLATE_MARKS.search(text) is not None
