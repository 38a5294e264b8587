"""Two records' texts, compared: white space and the order of a JSON object's keys do not count."""

import json
from typing import Any

from extractors.span_parsing.drop_reasons import Unreadable
from extractors.span_parsing.messages.parts import Text, read_parts
from extractors.span_parsing.nested_attributes import parse_json


def is_same_text(one: str, other: str) -> bool:
    """Return whether two records' texts are the same but for white space, or the same JSON."""
    return (
        remove_space(one) == remove_space(other) or is_same_json(one, other) or _is_text_of_parts(one, other)
    )


def remove_space(text: str) -> str:
    """Return `text` without any white space."""
    return "".join(text.split())


def is_same_json(one: str | None, other: str | None) -> bool:
    """Return whether two texts are equal, or the same JSON object or list."""
    if one == other:
        return True
    parsed, others = _parse_container(one), _parse_container(other)
    return parsed is not None and others is not None and _dump(parsed) == _dump(others)


def _dump(parsed: Any) -> str:
    return json.dumps(parsed, sort_keys=True)


def _parse_container(text: str | None) -> Any:
    parsed = parse_json(text)
    return parsed if isinstance(parsed, dict | list) else None


def _is_text_of_parts(one: str, other: str) -> bool:
    """Return whether one of the texts is the JSON of parts, and the other what they say."""
    for written, said in ((one, other), (other, one)):
        parts = _parse_container(written)
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
            continue
        try:
            texts = [part.text for part in read_parts(parts) if isinstance(part, Text)]
        except Unreadable:
            continue
        if texts and remove_space("".join(texts)) == remove_space(said):
            return True
    return False
