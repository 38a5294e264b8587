"""Headings, facts, tables, and sentences where there is nothing to show, of which pages are made."""

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
"""How states and verdicts look; the word itself always stands there."""


class Tagged(TextElement):
    """Text in an element of HTML; always as text."""

    def __init__(self, tag: str, text: str = "") -> None:
        super().__init__(tag=tag, text=text)


def labelled(known: E, words: str) -> E:
    """Name an element for those who do not see it. Never by `props(…)`, which reads a text as a program."""
    known.props["aria-label"] = words
    return known


def heading(text: str, level: int = 2) -> Tagged:
    """A heading of the page (1) or of a part of it."""
    return Tagged(f"h{level}", text)


def text(words: str, classes: str = "") -> Tagged:
    """A paragraph."""
    return Tagged("p", words).classes(classes)


def chip(word: str, tone: Tone | None = None) -> Tagged:
    """A state or verdict."""
    return Tagged("span", word).classes(f"chip {tone or TONES.get(word, 'plain')}")


def retone(known: Tagged, word: str, tone: Tone | None = None) -> None:
    """Have a chip say another word."""
    known.set_text(word)
    known.classes(replace=f"chip {tone or TONES.get(word, 'plain')}")


@contextmanager
def section(title: str, note: str = "") -> Iterator[None]:
    """A part of a page, with its heading."""
    with ui.element("section").classes("part") as part:
        title_shown = heading(title)
        part.props["aria-labelledby"] = title_shown.html_id
        if note:
            text(note, "muted")
        yield


def nothing(words: str, todo: str = "") -> None:
    """Where there is nothing to show: why, and what to do next."""
    with ui.element("div").classes("nothing"):
        text(words)
        if todo:
            text(todo, "muted")


def facts(known: Mapping[str, Any]) -> None:
    """Names and what they are; a value of None is left out."""
    with ui.element("dl").classes("facts"):
        for name, value in known.items():
            if value is None or value == "":
                continue
            Tagged("dt", name)
            with ui.element("dd"):
                if isinstance(value, Link):
                    value.show()
                else:
                    Tagged("span", shown(value))


class Link:
    """A way to another page, in facts and tables."""

    def __init__(self, words: str, target: str) -> None:
        self.words = words
        self.target = target

    def show(self) -> None:
        ui.link(self.words, self.target)


def outward(words: str, url: str) -> None:
    """A way out of the console, in a window of its own."""
    ui.link(words, url, new_tab=True).props('rel="noopener noreferrer"')


def table(
    caption: str,
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    numbers: Iterable[str] = (),
    headed: bool = False,
) -> None:
    """A plain table; `caption` is for those who hear it, `numbers` are columns that stand to the right.

    `headed`: the first cell of a row says what the row is.
    """
    right = frozenset(numbers)
    # Whoever has no mouse can scroll what has the focus.
    around = ui.element("div").classes("scroll").props("tabindex=0 role=region")
    with labelled(around, caption), ui.element("table").classes("plain"):
        Tagged("caption", caption).classes("unseen")
        with ui.element("thead"), ui.element("tr"):
            for column in columns:
                Tagged("th", column).props("scope=col").classes("right" if column in right else "")
        with ui.element("tbody"):
            for row in rows:
                with ui.element("tr"):
                    for place, column in enumerate(columns):
                        head = headed and not place
                        cell = _cell(row.get(column), "th" if head else "td")
                        cell.classes("right" if column in right else "").props("scope=row" if head else "")


def _cell(value: Any, tag: str) -> ui.element:
    if not isinstance(value, Link) and not (isinstance(value, str) and value in TONES):
        return Tagged(tag, shown(value))
    with ui.element(tag) as cell:
        if isinstance(value, Link):
            value.show()
        else:
            chip(value)
    return cell


def shown(value: Any) -> str:
    """A value for people."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {shown(each)}" for name, each in value.items()) or "–"
    if isinstance(value, list | tuple):
        return ", ".join(shown(each) for each in value) or "–"
    return str(value)


def columns_of(names: Mapping[str, str]) -> list[dict[str, str]]:
    """Columns of a `ui.table`, from fields to what stands above them."""
    return [{"name": name, "label": label, "field": name, "align": "left"} for name, label in names.items()]


def label_choices(known: ui.table) -> None:
    """Name the boxes of a table in which rows can be chosen."""
    known.add_slot("header-selection", '<q-checkbox v-model="props.selected" aria-label="Choose all" />')
    known.add_slot(
        "body-selection", '<q-checkbox v-model="props.selected" :aria-label="`Choose ${props.key}`" />'
    )


def moment(at: datetime | None) -> str:
    """A time, to the minute."""
    return f"{at:%Y-%m-%d %H:%M} UTC" if at else "–"


def ago(at: datetime | None, now: datetime) -> str:
    """How long ago something was."""
    if at is None:
        return "never"
    seconds = max((now - at).total_seconds(), 0)
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def percent(share: float) -> str:
    """A share of 0 to 1."""
    return f"{share:.1%}"
