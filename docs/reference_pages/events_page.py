"""Everything that learnd tells of: notifications, the audit log, and the lines of its log."""

import ast
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from daemon.monitoring.notifications import build_payload
from reference_pages.markdown import GENERATED, code, table
from registry.audit import Action
from registry.notices import Event, Notice

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("extractors", "trainers", "evaluation", "registry", "daemon")
LEVELS = ("debug", "info", "warning", "error", "exception")
INTRO = """# Events

"""
NOTIFICATIONS = """## Notifications

Each [`[[notify]]`](settings.md#notify) receiver gets these as JSON. `data` always has the `target`, and the
fields listed here. [Notifications](../guides/notifications.md) says how they are signed and repeated.

"""
AUDIT = """## Audit log

Every act that changes something for a target is a line of the audit log: time, actor, action, target, subject
and detail. The actor is a person, or `learnd` for what happens automatically. The console, `learnd adapters
show` and `GET /api/v1/audit` show it. The actions are:

"""
LOG = """## Log

`learnd run` and `learnd gateway` write their log to standard error, with
[`daemon.log_format`](settings.md#daemon.log_format) as text or as one JSON object a line. In JSON the message
is `event`; the fields stand beside it.

"""
MEANINGS: Mapping[Event, str] = {
    "batch.waiting": "Synthetic examples wait for an operator.",
    "cycle.failed": "A cycle ended FAILED.",
    "version.promoted": "A version went live.",
    "version.rolled_back": "A target went back to the version before, or to the base model.",
    "jobs.late": "Jobs of a target did not run when they should have; `seconds` is the longest delay.",
}


def events_page() -> str:
    """Return the page as Markdown. Raises ValueError where an event is written that has no meaning here."""
    return GENERATED + INTRO + NOTIFICATIONS + _notifications() + AUDIT + _actions() + LOG + _log()


def _notifications() -> str:
    fields = dict(_written_notices())
    if not fields.keys() == MEANINGS.keys() == set(get_args(Event)):
        raise ValueError(f"events are {get_args(Event)}; correct MEANINGS in {__file__}")
    rows = [(code(event), said, ", ".join(map(code, fields[event]))) for event, said in MEANINGS.items()]
    example = Notice(
        id=1,
        uid="4f0c",
        event="version.promoted",
        target="acme/routing",
        at=datetime(2026, 1, 1, tzinfo=UTC),
        details={"version": "acme.routing.v2", "previous_version": "acme.routing.v1", "actor": "learnd"},
    )
    return (
        table(("event", "when", "fields of `data`"), rows)
        + f"```json\n{build_payload(example).decode()}\n```\n\n"
    )


def _written_notices() -> Iterator[tuple[Any, list[str]]]:
    """Each event that the store writes, and the names of its details."""
    for call in _calls(ROOT / "registry" / "store"):
        if isinstance(call.func, ast.Name) and call.func.id == "write_notice":
            event = next(each.value for each in call.args if isinstance(each, ast.Constant))
            yield event, [each.arg for each in call.keywords if each.arg]


def _actions() -> str:
    return ", ".join(code(action) for action in get_args(Action)) + ".\n\n"


def _log() -> str:
    rows = sorted({row for stage in STAGES for row in _log_lines(ROOT / stage)})
    return table(("message", "level", "fields"), rows)


def _log_lines(folder: Path) -> Iterator[tuple[str, str, str]]:
    for call in _calls(folder):
        function = call.func
        if not (
            isinstance(function, ast.Attribute)
            and isinstance(function.value, ast.Name)
            and function.value.id == "log"
            and function.attr in LEVELS
            and call.args
            and isinstance(call.args[0], ast.Constant)
        ):
            continue
        fields = [each.arg for each in call.keywords if each.arg and each.arg != "exc_info"]
        level = "error" if function.attr == "exception" else function.attr
        yield code(str(call.args[0].value)), level, ", ".join(map(code, fields)) or "–"


def _calls(folder: Path) -> Iterator[ast.Call]:
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                yield node
