"""Messages and tools that can be stored: valid Unicode, readable JSON, and not too long."""

import json
from collections.abc import Sequence
from typing import Any

from extractors.examples.types import Message
from extractors.span_parsing.drop_reasons import DropReason, Unreadable
from extractors.span_parsing.nested_attributes import MOST_CHARACTERS
from extractors.values import Value


def check_storable(messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> None:
    """Check that messages and tools survive as UTF-8 JSON and are not too long.

    Raises Unreadable: NOT_UNICODE, MALFORMED, TOO_LARGE.
    """
    try:
        said = [message.model_dump() for message in messages]
        text = json.dumps([said, tools], ensure_ascii=False, allow_nan=False)
        text.encode()
        # Tools of any depth can be traced, but not written and read again.
        written = _Storable(messages=tuple(messages), tools=tuple(tools)).model_dump_json()
        _Storable.model_validate_json(written)
    except UnicodeEncodeError:
        raise Unreadable(DropReason.NOT_UNICODE) from None
    except (ValueError, RecursionError):
        raise Unreadable(DropReason.MALFORMED) from None
    if len(text) > MOST_CHARACTERS:
        raise Unreadable(DropReason.TOO_LARGE)


class _Storable(Value):
    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...]
