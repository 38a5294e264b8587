"""Takes the wanted text out of a language model's reply, without what small models put around it.

The reply is compared with samples, texts of the same kind: a feature that none of them has (quotes, a code
fence, a second line) is removed.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from extractors.examples.thoughts import split_thoughts
from extractors.llm.endpoint import ModelReply, UnusableReply

_HEADER = re.compile(r"\[\[ ## (\w+) ## \]\]")
_FENCED = re.compile(r"\s*```\w*\s*\n(.*?)\n?\s*```\s*", re.DOTALL)
_NEXT_TURN = re.compile(r"\n\s*(?:user|assistant|human|system|message|answer)\s*:", re.IGNORECASE)
_QUOTES = {'"': '"', "'": "'", "“": "”", "«": "»", "„": "“", "`": "`"}
_LONGEST = 2.0
"""Times the longest sample: a model that writes more rambles."""
_ROOM = 40
"""Further characters that are always allowed."""


def read_text(reply: ModelReply, name: str, samples: Sequence[str]) -> str:
    """Return the text that was asked for as `name`. Raises UnusableReply."""
    raw = split_thoughts(reply.text)[1].strip()
    text = _unquote(_take_one_line(_unwrap(raw, name, samples), samples), samples).strip()
    if not text:
        raise UnusableReply("the model wrote nothing")
    if not _is_storable(text):
        raise UnusableReply("characters that cannot be stored")
    if reply.cut_off and raw.endswith(text):
        raise UnusableReply("the model's answer was cut off at the limit of its length")
    if len(text) > find_longest(samples):
        raise UnusableReply("far longer than what it was shown")
    return text


def find_longest(samples: Sequence[str]) -> int:
    """Return how many characters a text of this kind may have."""
    return round(_LONGEST * max(map(len, samples), default=0)) + _ROOM


def _unwrap(raw: str, name: str, samples: Sequence[str]) -> str:
    """Remove a field's header, JSON, a code fence, the text's name before it, and the next turn behind it."""
    if (section := _find_section(raw, name)) is not None:
        raw = section
    if not _is_in_any(samples, "```") and (fenced := _FENCED.fullmatch(raw)):
        raw = fenced[1]
    if not any(text.lstrip().startswith(("{", "[")) for text in samples) and raw.startswith(("{", "[")):
        return _find_member(raw, name)
    named = re.match(rf"(?:{name.replace('_', '[ _]')}|{name.split('_')[-1]})\s*:\s*", raw, re.IGNORECASE)
    if named and not any(text.casefold().startswith(named[0].casefold()) for text in samples):
        raw = raw[named.end() :]
    following = _NEXT_TURN.search(raw)
    if following and not any(_NEXT_TURN.search(text) for text in samples):
        raw = raw[: following.start()]
    return raw


def _find_section(raw: str, name: str) -> str | None:
    """Return the text under the field's header, where the model writes DSPy's usual markup."""
    parts = _HEADER.split(raw)
    sections = dict(zip(reversed(parts[1::2]), reversed(parts[2::2]), strict=True))
    return sections[name].strip() if name in sections else None


def _find_member(raw: str, name: str) -> str:
    """Return the text in a JSON object where only a text was wanted. Raises UnusableReply."""
    try:
        found: Any = json.JSONDecoder().raw_decode(raw)[0]
    except (ValueError, RecursionError):
        raise UnusableReply("JSON that cannot be read, where a text was wanted") from None
    values = list(found.values()) if isinstance(found, dict) else []
    text = found.get(name, values[0] if len(values) == 1 else None) if isinstance(found, dict) else None
    if not isinstance(text, str):
        raise UnusableReply("JSON of another form, where a text was wanted")
    return text


def _take_one_line(text: str, samples: Sequence[str]) -> str:
    """Return the first line that is no announcement, where texts of this kind have one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if _is_in_any(samples, "\n") or len(lines) < 2:
        return text
    return lines[1] if lines[0].endswith(":") else lines[0]


def _unquote(text: str, samples: Sequence[str]) -> str:
    text = text.strip()
    quoted = len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[0] not in text[1:-1]
    return text[1:-1] if quoted and not any(other.startswith(text[0]) for other in samples) else text


def _is_storable(text: str) -> bool:
    """Return whether the text can be stored: files hold no half surrogate pair, PostgreSQL no NUL."""
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _is_in_any(samples: Sequence[str], part: str) -> bool:
    return any(part in text.strip() for text in samples)
