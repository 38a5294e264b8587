"""Reading nested span attributes of which no type is certain."""

import json
from typing import Any, Literal

from extractors.span_parsing.drop_reasons import DropReason, Unreadable

JSON_TYPE = "application/json"
MOST_CHARACTERS = 500_000
"""Longest text that is looked at, about 125,000 tokens; no training sequence is that long."""

COUNT_LIMITS = (128, 256, 512, 1000, 1024, 2048, 4096)
"""Numbers of attributes that people let a span have; OpenTelemetry's default is the first."""
JSON_ATTRIBUTES = frozenset({"metadata", "variables"})
"""Last steps of attributes whose JSON text Phoenix parses: each is one attribute, whatever it holds."""
ELSEWHERE = 28
"""Attributes that may lie outside the roots that the mirror keeps."""


def get_path(attributes: Any, path: str) -> Any:
    """Return the value at a dotted path, or None where any step is missing or no mapping."""
    for step in path.split("."):
        if not isinstance(attributes, dict):
            return None
        attributes = attributes.get(step)
    return attributes


def parse_json(value: Any) -> Any:
    """Return `value` itself, or what its JSON says where it is JSON text; None where it is other text.

    Raises Unreadable (TOO_LARGE) for text longer than MOST_CHARACTERS.
    """
    if not isinstance(value, str):
        return value
    if len(value) > MOST_CHARACTERS:
        raise Unreadable(DropReason.TOO_LARGE)
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def parse_uncut_json(written: Any) -> Any:
    """Return what JSON text says, None for other text. Raises Unreadable: VALUE_CUT where it breaks off."""
    parsed = parse_json(written)
    if parsed is None and isinstance(written, str) and written.lstrip().startswith(("[{", '{"')):
        raise Unreadable(DropReason.VALUE_CUT)
    return parsed


def parse_list(written: Any) -> list[Any]:
    """Return the list that `written` is, or is the JSON of; empty where there is none. Raises Unreadable."""
    parsed = parse_uncut_json(written)
    if not isinstance(parsed, list | None):
        raise Unreadable(DropReason.MALFORMED)
    return parsed or []


def parse_body(attributes: Any, side: Literal["input", "output"]) -> Any:
    """Parse the JSON body in `input.value` or `output.value`; None where there is none.

    A body has the MIME type of JSON, and is not what a listed message says word for word: an answer may
    itself be JSON. Raises Unreadable (TOO_LARGE).
    """
    value = get_path(attributes, f"{side}.value")
    if get_path(attributes, f"{side}.mime_type") != JSON_TYPE:
        return None
    listed = get_path(attributes, f"llm.{side}_messages")
    said = [get_path(entry, "message.content") for entry in listed] if isinstance(listed, list) else []
    return None if value in said else parse_json(value)


def to_entries(value: Any) -> list[dict[str, Any]]:
    """Return a list of mappings, as Phoenix nests `prefix.N.…` attributes: a list, or a mapping by index.

    Raises Unreadable: TRUNCATED where an entry is missing or empty, MALFORMED for anything else.
    """
    if isinstance(value, dict):
        value = _order_by_index(value)
    if not isinstance(value, list):
        raise Unreadable(DropReason.MALFORMED)
    if not all(value):
        raise Unreadable(DropReason.TRUNCATED)
    if not all(isinstance(entry, dict) for entry in value):
        raise Unreadable(DropReason.MALFORMED)
    return value


def _order_by_index(mapping: dict[str, Any]) -> list[Any]:
    if not all(key.isdecimal() for key in mapping):
        raise Unreadable(DropReason.MALFORMED)
    ordered = sorted(((int(key), entry) for key, entry in mapping.items() if entry), key=lambda pair: pair[0])
    if [index for index, _ in ordered] != list(range(len(ordered))):
        raise Unreadable(DropReason.TRUNCATED)
    return [entry for _, entry in ordered]


def count_attributes(attributes: Any) -> int:
    """Return how many flat attributes these were before Phoenix nested them (at least)."""
    count, waiting = 0, [attributes]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            count += sum(key in JSON_ATTRIBUTES for key in value)
            waiting.extend(inner for key, inner in value.items() if key not in JSON_ATTRIBUTES)
        elif isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
            waiting.extend(value)
        else:
            count += 1
    return count


def may_have_lost_attributes(attributes: Any) -> bool:
    """Return whether a span has about as many attributes as a limit lets it have."""
    count = count_attributes(attributes)
    return any(limit - ELSEWHERE <= count <= limit for limit in COUNT_LIMITS)
