"""Held-out items, and what each side said to them."""

from nicegui import ui

from daemon.console.base.page_session import Visit
from daemon.console.base.widgets import Tagged, chip, nothing
from daemon.views.report_text import answer_words, titled
from daemon.views.run_files import SideBySide, answers_of
from evaluation.report import Answer, Report
from registry.cycles import Cycle

ANSWERS = 20
"""Held-out items that are shown at once."""


class Answers:
    """A cycle's held-out items, some at a time."""

    def __init__(self, visit: Visit, cycle: Cycle, report: Report) -> None:
        self._visit = visit
        self._cycle = cycle
        self._report = report
        self._offset = 0
        with ui.element("div").classes("filters"):
            self._changed = ui.checkbox("Only where right became wrong, or wrong right", value=True)
            self._changed.on_value_change(self._from_the_start)
        self._rows = ui.element("div")
        self._more = ui.button("Show more", on_click=self.read).props("flat no-caps color=primary")

    async def _from_the_start(self) -> None:
        self._offset = 0
        self._rows.clear()
        await self.read()

    async def read(self) -> None:
        """Show the next ones."""
        settings, cycle = self._visit.console.settings, self._cycle
        changed, offset = bool(self._changed.value), self._offset
        self._more.disable()
        found = await self._visit.read(
            lambda: answers_of(settings, cycle, changed=changed, offset=offset, limit=ANSWERS + 1)
        )
        shown = found[:ANSWERS]
        if (changed, offset) != (bool(self._changed.value), self._offset):
            return  # Something else was asked for meanwhile.
        self._offset += len(shown)
        with self._rows:
            if not self._offset:
                nothing("There are none.")
            for item in shown:
                _item(item, self._report)
        self._more.enable()
        self._more.set_visibility(len(found) > ANSWERS)


def _item(item: SideBySide, report: Report) -> None:
    with ui.element("article").classes("answers"):
        unread = f"item {item.item_id} (its snapshot cannot be read)"
        asked = item.prompt[-1].content if item.prompt else unread
        Tagged("pre", asked).classes("said")
        if item.gold is not None:
            answer_line("should be", item.gold)
        for side, answer in item.answers.items():
            answer_line(titled(report, side), answer_words(answer), _judged(answer))


def _judged(answer: Answer) -> str:
    said = {True: "right", False: "wrong", None: "no known answer"}[answer.correct]
    return said if answer.valid else f"{said}, not valid"


def answer_line(side: str, words: str, judged: str = "") -> None:
    """What a side answers, and whether that is right."""
    with ui.element("div").classes("answer"):
        Tagged("span", side).classes("side")
        Tagged("span", words or "(empty)").classes("words")
        if judged:
            chip(judged, "good" if judged == "right" else "bad" if judged.startswith("wrong") else "plain")
