"""Limits of what passes through the gateway: the size of answers, and the JSON of both sides.

JSON has no NaN and no infinity (RFC 8259, section 6), though Python reads and writes both. Nesting is
limited, because what can just be read may be too deep to be written again.
"""

import json
import math
from typing import Any, NoReturn

import orjson

from extractors.errors import LearndError

MAX_DEPTH = 100
"""Lists and objects within each other, the outermost included."""
MAX_EVENT_BYTES = 8 * 2**20
"""Size of one event of a stream."""
MAX_ANSWER_BYTES = 32 * 2**20
"""Size of an answer, in one piece or as a stream."""


class BeyondLimits(LearndError):
    """A body that is not passed on. The message continues a sentence that begins with the body."""


def parse_json(text: bytes) -> Any:
    """Return the value that `text` is. Raises ValueError where it is not JSON, and BeyondLimits."""
    try:
        value = _DECODER.decode(text.decode(json.detect_encoding(text), "surrogatepass"))
    except RecursionError:
        raise _build_too_deep() from None
    # Most bodies have too few brackets to be deep, and counting them is much faster than walking.
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH and _is_too_deep(value):
        raise _build_too_deep()
    return value


def _parse_float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        _refuse_number(text[:40])
    return number


def _refuse_number(text: str) -> NoReturn:
    raise BeyondLimits(f"contains a number that JSON cannot carry: {text}")


_DECODER = json.JSONDecoder(parse_float=_parse_float, parse_constant=_refuse_number)


def estimate_memory(text: bytes) -> int:
    """Return about how many bytes the value of `text` takes: many times its text where it is small values."""
    return len(text) + 120 * (text.count(b"[") + text.count(b"{")) + 50 * text.count(b",")


def write_json(value: Any) -> bytes:
    """Return the text of a value that `parse_json` has returned, in UTF-8 and without spaces."""
    try:
        return orjson.dumps(value)
    except TypeError:
        # It holds integers of more than 64 bits, or half a surrogate pair.
        return json.dumps(value, separators=(",", ":")).encode()


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _build_too_deep() -> BeyondLimits:
    return BeyondLimits(f"is nested deeper than {MAX_DEPTH} levels")
