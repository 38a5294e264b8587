"""Explains what is wrong with settings, as lines that say what to write instead."""

from collections.abc import Collection
from difflib import get_close_matches

from pydantic import ValidationError
from pydantic_core import ErrorDetails


def explain(wrong: ValidationError, known: Collection[str]) -> str:
    """Return one line per problem: the key's path and what is wrong with it.

    `known` holds the keys that may stand there; the nearest of them is suggested for a misspelt one.
    The value never appears, since it may be a secret.
    """
    return "\n".join(
        f"  {_format_path(error['loc'])}: {_describe(error, known)}"
        for error in wrong.errors(include_input=False, include_url=False)
    )


def _describe(error: ErrorDetails, known: Collection[str]) -> str:
    if error["type"] != "extra_forbidden":
        return error["msg"].removeprefix("Value error, ")
    given = str(error["loc"][-1])
    near = get_close_matches(given, known, n=1) if given not in known else []
    return f"there is no such key here{f'; did you mean {near[0]}?' if near else ''}"


def _format_path(location: tuple[int | str, ...]) -> str:
    # The keys of `agents.tokens` and `operators.tokens` are the tokens themselves.
    shown = location[:2] if location[1:2] == ("tokens",) else location
    return ".".join(map(str, shown)) or "settings"
