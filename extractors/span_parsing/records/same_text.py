"""Two records' texts, compared: white space and the order of a JSON object's keys do not count."""

import json
from typing import Any

from extractors.span_parsing.drop_reasons import Unreadable
from extractors.span_parsing.messages.parts import Text, read_parts, read_result_part
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
    return any(
        remove_space(said) in map(remove_space, _list_readings(_parse_container(written)))
        for written, said in ((one, other), (other, one))
    )


def _list_readings(written: Any) -> list[str]:
    """Return what parts say as a message, and as what a tool returned; none where they say nothing so."""
    readings: list[str] = []
    for read in (_read_as_message, _read_as_result):
        try:
            readings += read(written)
        except Unreadable:
            continue
    return readings


def _read_as_message(written: Any) -> list[str]:
    if not isinstance(written, list) or not all(isinstance(part, dict) for part in written):
        return []
    texts = [part.text for part in read_parts(written) if isinstance(part, Text)]
    return ["".join(texts)] if texts else []


def _read_as_result(written: Any) -> list[str]:
    text = read_result_part({"response": written}).text
    return [text] if text else []
