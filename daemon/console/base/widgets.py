"""Headings, facts, tables and empty states, of which the pages are made."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Literal, TypeVar

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

E = TypeVar("E", bound=ui.element)
Tone = Literal["good", "bad", "warn", "plain", "busy"]
TONES: dict[str, Tone] = {
    "PROMOTE": "good",
    "PROBATION": "warn",
    "REJECT": "bad",
    "INCONCLUSIVE": "warn",
    "DONE": "good",
    "FAILED": "bad",
    "SKIPPED": "plain",
    "EXTRACTING": "busy",
    "SELECTING": "busy",
    "TRAINING": "busy",
    "EVALUATING": "busy",
    "PROMOTING": "busy",
    "ACTIVE": "good",
    "READY": "warn",
    "REJECTED": "bad",
    "APPROVED": "good",
    "WAITING": "warn",
    "DECIDED": "good",
}
"""Colours of states and verdicts. The word itself is always shown, too."""


class TextTag(TextElement):
    """An HTML element that holds text; the text is never read as markup."""

    def __init__(self, tag: str, text: str = "") -> None:
        super().__init__(tag=tag, text=text)


def set_aria_label(element: E, label: str) -> E:
    """Name an element for screen readers, and return it. `props(…)` would parse the label as a program."""
    element.props["aria-label"] = label
    return element


def show_heading(text: str, level: int = 2) -> TextTag:
    """Show a heading of the page (level 1) or of a part of it."""
    return TextTag(f"h{level}", text)


def show_text(text: str, classes: str = "") -> TextTag:
    """Show a paragraph."""
    return TextTag("p", text).classes(classes)


def show_chip(word: str, tone: Tone | None = None) -> TextTag:
    """Show a state or verdict, coloured by `tone` or by the word itself."""
    return TextTag("span", word).classes(f"chip {tone or TONES.get(word, 'plain')}")


def update_chip(chip: TextTag, word: str, tone: Tone | None = None) -> None:
    """Replace the word and the colour of a chip."""
    chip.set_text(word)
    chip.classes(replace=f"chip {tone or TONES.get(word, 'plain')}")


@contextmanager
def show_section(title: str, note: str = "") -> Iterator[None]:
    """Show a part of the page with its heading; what is shown inside the block belongs to it."""
    with ui.element("section").classes("part") as part:
        part.props["aria-labelledby"] = show_heading(title).html_id
        if note:
            show_text(note, "muted")
        yield


def show_empty_state(words: str, todo: str = "") -> None:
    """Show a sentence where there is nothing else to show, and what to do next."""
    with ui.element("div").classes("nothing"):
        show_text(words)
        if todo:
            show_text(todo, "muted")


def show_facts(facts: Mapping[str, Any]) -> None:
    """Show a list of names and values; values of None and empty ones are left out."""
    with ui.element("dl").classes("facts"):
        for name, value in facts.items():
            if value is None or value == "":
                continue
            TextTag("dt", name)
            with ui.element("dd"):
                if isinstance(value, Link):
                    value.show()
                else:
                    TextTag("span", format_value(value))


class Link:
    """A link to another page of the console, for facts and tables."""

    def __init__(self, words: str, target: str) -> None:
        self.words = words
        self.target = target

    def show(self) -> None:
        ui.link(self.words, self.target)


def show_external_link(words: str, url: str) -> None:
    """Show a link that leaves the console, and opens in a window of its own."""
    ui.link(words, url, new_tab=True).props('rel="noopener noreferrer"')


def show_table(
    caption: str,
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    numbers: Iterable[str] = (),
    headed: bool = False,
) -> None:
    """Show a plain table of `columns`, which are keys of the `rows`.

    Screen readers read the `caption`; the columns in `numbers` are aligned to the right. With `headed`, the
    first cell of each row is its heading.
    """
    right = frozenset(numbers)
    with show_scrollable_table(caption):
        with ui.element("thead"), ui.element("tr"):
            for column in columns:
                TextTag("th", column).props("scope=col").classes("right" if column in right else "")
        with ui.element("tbody"):
            for row in rows:
                with ui.element("tr"):
                    for place, column in enumerate(columns):
                        head = headed and not place
                        cell = _show_cell(row.get(column), "th" if head else "td")
                        cell.classes("right" if column in right else "").props("scope=row" if head else "")


@contextmanager
def show_scrollable_table(caption: str, classes: str = "plain") -> Iterator[None]:
    """Show an HTML table that scrolls sideways where it is too wide; its head and body are the caller's."""
    # Readers without a mouse can scroll what has the focus.
    around = ui.element("div").classes("scroll").props("tabindex=0 role=region")
    with set_aria_label(around, caption), ui.element("table").classes(classes):
        TextTag("caption", caption).classes("unseen")
        yield


def _show_cell(value: Any, tag: str) -> ui.element:
    if not isinstance(value, Link) and not (isinstance(value, str) and value in TONES):
        return TextTag(tag, format_value(value))
    with ui.element(tag) as cell:
        if isinstance(value, Link):
            value.show()
        else:
            show_chip(value)
    return cell


def format_value(value: Any) -> str:
    """Return any value as people read it."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {format_value(each)}" for name, each in value.items()) or "–"
    if isinstance(value, list | tuple):
        return ", ".join(format_value(each) for each in value) or "–"
    return str(value)


def build_columns(labels: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the columns of a `ui.table`; `labels` are the headings by field."""
    return [{"name": name, "label": label, "field": name, "align": "left"} for name, label in labels.items()]


def label_checkboxes(table: ui.table) -> None:
    """Name the checkboxes of a `ui.table` with selectable rows, for screen readers."""
    table.add_slot("header-selection", '<q-checkbox v-model="props.selected" aria-label="Choose all" />')
    table.add_slot(
        "body-selection", '<q-checkbox v-model="props.selected" :aria-label="`Choose ${props.key}`" />'
    )


def format_time(at: datetime | None) -> str:
    """Return a time in UTC, to the minute."""
    return f"{at:%Y-%m-%d %H:%M} UTC" if at else "–"


def format_age(at: datetime | None, now: datetime) -> str:
    """Return how long ago `at` was, in one unit."""
    if at is None:
        return "never"
    seconds = max((now - at).total_seconds(), 0)
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def format_percent(share: float) -> str:
    """Return a share of 0 to 1 in percent."""
    return f"{share:.1%}"
