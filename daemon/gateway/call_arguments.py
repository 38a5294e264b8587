"""The arguments of a streamed tool call, in the pieces in which they come."""

import json
import re

_MARKS = re.compile(r'\\.?|["{}\[\]]', re.DOTALL)
"""Escapes, quotes and brackets: all that decides where a JSON object ends."""


class CallArguments:
    """Arguments that grow. Each piece is looked at once, however many come."""

    def __init__(self, text: str) -> None:
        self._pieces: list[str] = []
        self._size = 0
        self._depth = 0
        self._in_string = False
        self._half_escape = ""
        self._is_whole: bool | None = None
        """None where it has to be found out."""
        self.add(text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CallArguments):
            return NotImplemented
        return self._size == other._size and self.join() == other.join()

    __hash__ = None  # type: ignore[assignment]

    def add(self, piece: str) -> None:
        if piece:
            self._pieces.append(piece)
            self._size += len(piece)
            self._is_whole = None
            self._count_brackets(piece)

    def join(self) -> str:
        """Return all of them as one text."""
        self._pieces = ["".join(self._pieces)]
        return self._pieces[0]

    @property
    def is_whole(self) -> bool:
        """True once they are a JSON object: nothing can be added to one."""
        if self._is_whole is None:
            # Joined and parsed only where all brackets are closed, which is nearly always the end.
            self._is_whole = self._depth == 0 and not self._in_string and _is_object(self.join())
        return self._is_whole

    def _count_brackets(self, piece: str) -> None:
        text, self._half_escape = self._half_escape + piece, ""
        for mark in _MARKS.findall(text):
            if mark == "\\":
                self._half_escape = mark
            elif mark == '"':
                self._in_string = not self._in_string
            elif mark in "{[" and not self._in_string:
                self._depth += 1
            elif mark in "}]" and not self._in_string:
                self._depth -= 1


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
