"""Held-out items, and each side's answers to them."""

from nicegui import ui

from daemon.console.base.page_session import PageSession
from daemon.console.base.widgets import TextTag, Tone, show_chip, show_empty_state
from daemon.settings.load import Settings
from daemon.views.report_text import describe_answer, format_side
from daemon.views.run_files import SideBySide, read_answers
from evaluation.report import Report, ScoredAnswer
from registry.cycles import Cycle

PAGE_SIZE = 20
"""Held-out items that are shown at once."""


class AnswerList:
    """Shows a cycle's held-out items, some at a time."""

    def __init__(self, session: PageSession, settings: Settings, cycle: Cycle, report: Report) -> None:
        self._session = session
        self._settings = settings
        self._cycle = cycle
        self._report = report
        self._offset = 0
        with ui.element("div").classes("filters"):
            self._changed = ui.checkbox("Only where right became wrong, or wrong right", value=True)
            self._changed.on_value_change(self._start_again)
        self._rows = ui.element("div")
        self._more = ui.button("Show more", on_click=self.read).props("flat no-caps color=primary")

    async def _start_again(self) -> None:
        self._offset = 0
        self._rows.clear()
        await self.read()

    async def read(self) -> None:
        """Show the next items."""
        settings, cycle = self._settings, self._cycle
        changed, offset = bool(self._changed.value), self._offset
        self._more.disable()
        found = await self._session.read(
            lambda: read_answers(settings, cycle, changed=changed, offset=offset, limit=PAGE_SIZE + 1)
        )
        shown = found[:PAGE_SIZE]
        if (changed, offset) != (bool(self._changed.value), self._offset):
            return  # The filter was changed meanwhile.
        self._offset += len(shown)
        with self._rows:
            if not self._offset:
                show_empty_state("There are none.")
            for item in shown:
                _show_item(item, self._report)
        self._more.enable()
        self._more.set_visibility(len(found) > PAGE_SIZE)


def _show_item(item: SideBySide, report: Report) -> None:
    with ui.element("article").classes("answers"):
        unread = f"item {item.item_id} (its snapshot cannot be read)"
        asked = item.prompt[-1].content if item.prompt else unread
        TextTag("pre", asked).classes("said")
        if item.gold is not None:
            show_answer("should be", item.gold)
        for side, answer in item.answers.items():
            show_answer(format_side(report, side), describe_answer(answer), _describe_correctness(answer))


def _describe_correctness(answer: ScoredAnswer) -> str:
    correctness = {True: "right", False: "wrong", None: "no known answer"}[answer.correct]
    return correctness if answer.valid else f"{correctness}, not valid"


def show_answer(side: str, answer: str, correctness: str = "") -> None:
    """Show what a side answered, and whether that is right."""
    with ui.element("div").classes("answer"):
        TextTag("span", side).classes("side")
        TextTag("span", answer or "(empty)").classes("words")
        if correctness:
            tone: Tone = "bad" if correctness.startswith("wrong") else "plain"
            show_chip(correctness, "good" if correctness == "right" else tone)
