"""Every key of `learnd.toml`, read from the settings' models."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from daemon.settings.load import Settings
from daemon.settings.target import TargetSettings
from reference_pages.markdown import GENERATED, code, field_docstrings, prose, table
from trainers.planning.hyperparameters import Hyperparameters
from trainers.planning.method_rules import Task

INTRO = """# Settings

learnd reads one TOML file: `./learnd.toml`, or the one that `--config` or `LEARND_CONFIG` names.
`learnd init` writes one with comments. This page lists every key; the text comes from the code.

- **Environment variables.** Each key of a single table has a variable, which wins over the file: the
  variable of `url` in `[phoenix]` is `LEARND_PHOENIX__URL`. Lists and tables are JSON there.
- **Secrets** are refused in the file. Put each one into a file of its own that the settings name
  (`…_file`), or into its environment variable.
- **Paths** in the file are relative to the file. Paths in variables are relative to the working folder.
- **Errors.** A key that does not exist, or a value that cannot be right, stops every command. The
  message has the key's path and says what would be right.

"""
BOUNDS: dict[type, tuple[str, str]] = {Ge: ("ge", "≥"), Gt: ("gt", ">"), Le: ("le", "≤"), Lt: ("lt", "<")}
PLAIN = {bool: "`true` or `false`", int: "whole number", float: "number", str: "text", Path: "path"}


@dataclass(frozen=True)
class Section:
    """One table of the TOML file."""

    path: str
    """Dotted, such as `targets.gate`; empty for the top level."""
    heading: str
    """As TOML writes it: `[targets.gate]`, `[[targets]]`."""
    model: type[BaseModel]
    in_list: bool
    """The section is in a list of tables, so its keys have no environment variables."""


def settings_page() -> str:
    """Return the page as Markdown."""
    top = Section("", "Top level", Settings, in_list=False)
    parts = [GENERATED, INTRO, _defaults_by_task(), *map(_describe_section, _sections(top))]
    hyperparameters = Section(
        "targets.hyperparameters", "[targets.hyperparameters]", Hyperparameters, in_list=True
    )
    parts.append(_describe_section(hyperparameters))
    parts.append(
        "The defaults above apply where no row of the [hyperparameter table](rules.md#hyperparameters) says "
        "otherwise. A table under a method's name, such as `[targets.hyperparameters.dpo]`, applies to that "
        "method alone.\n"
    )
    return "".join(parts)


def _sections(section: Section) -> Iterator[Section]:
    """`section` and the tables in it, in the order of their fields."""
    yield section
    for name, field in section.model.model_fields.items():
        nested = _nested(field)
        if nested is None:
            continue
        model, form = nested
        path = f"{section.path}.{name}" if section.path else name
        shown = f"{path}.NAME" if form == "table by name" else path
        heading = f"[[{shown}]]" if form == "list" else f"[{shown}]"
        yield from _sections(Section(path, heading, model, section.in_list or form != "one"))


def _nested(field: FieldInfo) -> tuple[type[BaseModel], str] | None:
    """The model of a field that is a table of its own, and how often there is one."""
    annotation = _without_none(field.annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, "one"
    arguments = [each for each in get_args(annotation) if isinstance(each, type)]
    models = [each for each in arguments if issubclass(each, BaseModel)]
    if not models:
        return None
    return models[0], "table by name" if get_origin(annotation) is dict else "list"


def _describe_section(section: Section) -> str:
    anchor = section.path or "top-level"
    heading = section.heading if section.path == "" else code(section.heading)
    said = section.model.__doc__ if "__doc__" in vars(section.model) else ""
    docstrings = field_docstrings(section.model)
    rows = []
    for name, field in section.model.model_fields.items():
        key = f"{section.path}.{name}" if section.path else name
        if _nested(field):
            meaning = f"See [{code(key)}](#{key}). {docstrings.get(name, '')}"
        else:
            meaning = f"{docstrings.get(name, '')} *{_type_words(field)}*"
        rows.append((_key_cell(section, name, key, own=not _nested(field)), _default_cell(field), meaning))
    return f"## {heading} {{ #{anchor} }}\n\n{prose(said)}\n\n" + table(("key", "default", "meaning"), rows)


def _key_cell(section: Section, name: str, key: str, *, own: bool) -> str:
    shown = f"[{code(name)}](#{key}){{ #{key} }}" if own else code(name)
    if section.in_list or not own:
        return shown
    return f"{shown}<br><small>{code('LEARND_' + key.upper().replace('.', '__'))}</small>"


def _default_cell(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True, validated_data={})
    return "–" if _nested(field) else _written(default)


def _written(value: Any) -> str:
    """A value as TOML writes it."""
    if value is None or value is PydanticUndefined or value in ((), {}):
        return "–"
    if isinstance(value, Path):
        return code(json.dumps(str(value)))
    if isinstance(value, float) and value.is_integer():
        return code(str(int(value)))
    return code(json.dumps(value, ensure_ascii=False, default=str))


def _type_words(field: FieldInfo) -> str:
    words = _words(field.annotation)
    bounds = [
        f"{sign} {getattr(each, name):g}"
        for each in field.metadata
        for kind, (name, sign) in BOUNDS.items()
        if isinstance(each, kind)
    ]
    return f"{words} {' and '.join(bounds)}".strip()


def _words(annotation: Any) -> str:
    """A type in words."""
    annotation = _without_none(annotation)
    origin = get_origin(annotation)
    if origin is Annotated:
        return _words(get_args(annotation)[0])
    if origin is Literal:
        return " or ".join(code(json.dumps(each)) for each in get_args(annotation))
    if origin is tuple:
        return f"list of: {_words(get_args(annotation)[0])}"
    if origin is dict:
        return "table"
    if origin in (UnionType, Union):
        return ", ".join(_words(each) for each in get_args(annotation))
    if annotation is SecretStr:
        return "secret"
    return PLAIN.get(annotation, "value")


def _without_none(annotation: Any) -> Any:
    """`X | None` as X."""
    if get_origin(annotation) in (UnionType, Union):
        kinds = [each for each in get_args(annotation) if each is not type(None)]
        if len(kinds) == 1:
            return kinds[0]
    return annotation


def _defaults_by_task() -> str:
    """The keys of a target whose default another task changes."""
    least = {"tenant": "acme", "agent": "routing", "project": "p", "base_model": "m"}
    usual = TargetSettings.model_validate({**least, "task": "classification"})
    rows = []
    for task in get_args(Task):
        target = TargetSettings.model_validate({**least, "task": task})
        rows += [
            (code(task), f"[{code(key)}](#targets.{key})", code(json.dumps(value, ensure_ascii=False)))
            for key, value in _differences(usual.model_dump(), target.model_dump())
            if key != "task"
        ]
    said = "Some defaults of a target depend on its task; what the file says stands:\n\n"
    return said + table(("task", "key", "default"), rows)


def _differences(one: Any, other: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in other:
            yield from _differences(one.get(key), other[key], f"{path}.{key}" if path else key)
    elif one != other:
        yield path, other
