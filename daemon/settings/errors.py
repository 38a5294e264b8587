"""Explains what is wrong with settings, as lines that say what to write instead."""

from collections.abc import Callable, Collection
from difflib import get_close_matches

from pydantic import ValidationError
from pydantic_core import ErrorDetails

Location = tuple[int | str, ...]
"""Path of a key: the keys and the indices that lead to it."""


def explain(wrong: ValidationError, find_keys: Callable[[Location], Collection[str]]) -> str:
    """Return one line per problem: the key's path and what is wrong with it.

    `find_keys` returns the keys of the table at a location; the nearest of them is suggested for a misspelt
    one. The value never appears, since it may be a secret.
    """
    return "\n".join(
        f"  {_format_path(error['loc'])}: {_describe(error, find_keys)}"
        for error in wrong.errors(include_input=False, include_url=False)
    )


def _describe(error: ErrorDetails, find_keys: Callable[[Location], Collection[str]]) -> str:
    if error["type"] != "extra_forbidden":
        return error["msg"].removeprefix("Value error, ")
    *table, given = error["loc"]
    near = get_close_matches(str(given), find_keys(tuple(table)), n=1)
    return f"there is no such key here{f'; did you mean {near[0]}?' if near else ''}"


def _format_path(location: Location) -> str:
    # The keys of `agents.tokens` and `operators.tokens` are the tokens themselves.
    shown = location[:2] if location[1:2] == ("tokens",) else location
    return ".".join(map(str, shown)) or "settings"
