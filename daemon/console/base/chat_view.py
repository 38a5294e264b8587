"""Examples as people read them, with who says what and the tools that are called; always as text."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import ui

from daemon.console.base.widgets import Tagged

ANSWERS = {
    "completion": "Answer",
    "chosen": "Better answer",
    "rejected": "Worse answer",
    "positive": "Relevant document",
    "negative": "Irrelevant document",
    "anchor": "Query",
    "label": "Liked",
}
"""What the fields of an example's line are called."""


def example_shown(line: Mapping[str, Any]) -> None:
    """An example's line (`extractors.file_formats.jsonl`), field by field."""
    for name, value in line.items():
        if name in {"prompt", "messages"}:
            for message in value:
                message_shown(message, str(message["role"]))
        elif name == "tools":
            with ui.expansion("Tools that were offered").classes("tools"):
                Tagged("pre", _pretty(value)).classes("said")
        else:
            for message in value if isinstance(value, list) else [{"content": _words(value)}]:
                message_shown(message, ANSWERS.get(name, name), answers=name in ANSWERS)


def message_shown(message: Mapping[str, Any], who: str, *, answers: bool = False) -> None:
    """One message under the name of who says it."""
    with ui.element("div").classes("message answer-message" if answers else "message"):
        Tagged("span", who).classes("role")
        Tagged("pre", str(message.get("content") or "")).classes("said")
        for call in message.get("tool_calls") or ():
            called = call["function"]
            Tagged("pre", f"calls {called['name']}({called['arguments']})").classes("said call")


def plain(value: Any) -> str:
    """What a field says, as one text, to compare and to edit."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "\n\n".join(str(message.get("content") or "") for message in value)
    return _words(value)


def _words(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _pretty(tools: Any) -> str:
    known = json.loads(tools) if isinstance(tools, str) else tools
    return json.dumps(known, indent=2, ensure_ascii=False)
