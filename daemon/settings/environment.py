"""Checks the names of the `LEARND_…` environment variables, of which pydantic ignores the unknown ones."""

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import get_origin

from pydantic import BaseModel

PREFIX = "LEARND_"
OTHER_VARIABLES = frozenset(
    {
        "LEARND_CONFIG",
        "LEARND_NOTICE_ID",
        "LEARND_OPERATOR",
        "LEARND_REPLICA_KEY",
        "LEARND_TOKEN",
        "LEARND_URL",
        "LEARND_VLLM_PYTHON",
    }
)
"""Variables that are no settings: of the command line, of the client for agents, of notified commands."""
SERVICE_LINKS = ("tcp://", "udp://", "sctp://")
"""Kubernetes sets LEARND_GATEWAY_PORT=tcp://… for a service that is called learnd-gateway."""


def list_variables() -> list[str]:
    """Return the names of the `LEARND_…` variables that are set."""
    return sorted(name for name in os.environ if name.upper().startswith(PREFIX))


def find_misspelt(environment: Mapping[str, str], settings: type[BaseModel]) -> Iterator[str]:
    """Yield a line for each variable that looks like a setting and is none, with the likely right name.

    A variable without `__` that resembles no setting is left alone: other programs may have set it.
    """
    for name, value in sorted(environment.items()):
        variable = name.upper()
        section, separator, rest = variable.removeprefix(PREFIX).lower().partition("__")
        if not variable.startswith(PREFIX) or variable in OTHER_VARIABLES:
            continue
        if section in settings.model_fields:
            if separator and section in _list_arrays(settings):
                yield f"  {name}: {section!r} is a list: set all of it as JSON in {_name_variable(section)}"
            continue
        if separator:
            right = _find_right_section(section, rest, settings)
            hint = f"; did you mean {right}?" if right else ""
            yield f"  {name}: the settings have no section {section!r}{hint}"
        elif (right := _find_right_name(variable, settings)) and not value.startswith(SERVICE_LINKS):
            yield f"  {name}: there is no such setting; did you mean {right}?"


def _find_right_section(section: str, rest: str, settings: type[BaseModel]) -> str | None:
    """Return the variable that was meant by one with `__`; None if it resembles none."""
    near = get_close_matches(section, settings.model_fields, n=1, cutoff=0.7)
    if near and near[0] not in _list_arrays(settings):
        return _name_variable(near[0], rest)
    whole = get_close_matches(f"{section}_{rest}", settings.model_fields, n=1, cutoff=0.9)
    return next((_name_variable(name) for name in (*near, *whole)), None)


def _find_right_name(variable: str, settings: type[BaseModel]) -> str | None:
    """Return the variable that was meant by one without `__`; None if it resembles none."""
    meant = variable.removeprefix(PREFIX).lower()
    for section, keys in _list_tables(settings).items():
        near = get_close_matches(meant.removeprefix(f"{section}_"), keys, n=1, cutoff=0.8)
        if meant.startswith(f"{section}_") and near:
            return _name_variable(section, near[0])
    names = {_name_variable(name) for name in settings.model_fields} | OTHER_VARIABLES
    return next(iter(get_close_matches(variable, sorted(names), n=1, cutoff=0.9)), None)


def _list_arrays(settings: type[BaseModel]) -> list[str]:
    """Return the keys that are lists of tables."""
    return [name for name, field in settings.model_fields.items() if get_origin(field.annotation) is tuple]


def _list_tables(settings: type[BaseModel]) -> dict[str, list[str]]:
    """Return the keys of each section that is a single table."""
    models = {name: field.annotation for name, field in settings.model_fields.items()}
    return {
        name: list(model.model_fields)
        for name, model in models.items()
        if isinstance(model, type) and issubclass(model, BaseModel)
    }


def _name_variable(*keys: str) -> str:
    return PREFIX + "__".join(keys).upper()
