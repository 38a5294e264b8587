"""Examples as people read them: who says what, and which tools are called. Never read as markup."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import ui

from daemon.console.base.widgets import TextTag

FIELD_NAMES = {
    "completion": "Answer",
    "chosen": "Better answer",
    "rejected": "Worse answer",
    "positive": "Relevant document",
    "negative": "Irrelevant document",
    "anchor": "Query",
    "label": "Liked",
}
"""Labels of an example's fields."""


def show_example(line: Mapping[str, Any]) -> None:
    """Show an example's line (`extractors.file_formats.jsonl`), field by field."""
    for name, value in line.items():
        if name in {"prompt", "messages"}:
            for message in value:
                show_message(message, str(message["role"]))
        elif name == "tools":
            with ui.expansion("Tools that were offered").classes("tools"):
                TextTag("pre", _format_tools(value)).classes("said")
        else:
            for message in value if isinstance(value, list) else [{"content": _to_words(value)}]:
                show_message(message, FIELD_NAMES.get(name, name), is_answer=name in FIELD_NAMES)


def show_message(message: Mapping[str, Any], author: str, *, is_answer: bool = False) -> None:
    """Show one message under the name of its author, a reasoning model's thoughts folded before it."""
    with ui.element("div").classes("message answer-message" if is_answer else "message"):
        TextTag("span", author).classes("role")
        if message.get("reasoning_content"):
            with ui.expansion("Thoughts").classes("tools"):
                TextTag("pre", str(message["reasoning_content"])).classes("said")
        TextTag("pre", str(message.get("content") or "")).classes("said")
        for call in message.get("tool_calls") or ():
            function = call["function"]
            TextTag("pre", f"calls {function['name']}({function['arguments']})").classes("said call")


def to_plain_text(value: Any) -> str:
    """Return the content of a field as one text, to compare and to edit."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "\n\n".join(str(message.get("content") or "") for message in value)
    return _to_words(value)


def _to_words(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _format_tools(tools: Any) -> str:
    parsed = json.loads(tools) if isinstance(tools, str) else tools
    return json.dumps(parsed, indent=2, ensure_ascii=False)
