"""A target's examples by kind and origin, and the reasons for dropped spans, with links into Phoenix."""

from collections.abc import Sequence
from typing import get_args

from fastapi import Request
from nicegui import ui

from daemon.console.base.chat_view import show_example
from daemon.console.base.context import ConsoleContext
from daemon.console.base.page_session import notify_problem
from daemon.console.base.widgets import (
    format_time,
    set_aria_label,
    show_chip,
    show_empty_state,
    show_facts,
    show_section,
    show_table,
    show_text,
)
from daemon.console.frame import show_frame
from daemon.console.pages.data_audit import build_audit_url
from daemon.settings.target import TargetThresholds
from daemon.views.data_summary import KINDS, DataSummary, ShownExample, SpanLink, TargetData
from daemon.views.status import WORDS
from extractors.errors import LearndError
from extractors.examples.types import Origin
from registry.store.database import StoreUnavailable
from trainers.planning.plan import ExampleKind

PAGE_SIZE = 20
"""Examples that are shown at once."""
SPANS = 20
"""Links that are shown for a reason."""
ANY = "any"
THRESHOLD_NAMES: dict[ExampleKind, str] = {
    "sft": "sft_examples",
    "pairs": "pairs",
    "votes": "votes",
    "triplets": "triplets",
    "trajectories": "trajectories",
}
"""The threshold that each kind must reach, by its name in the settings."""


def add_data_page(console: ConsoleContext) -> None:
    """Add the page `/data`."""

    @ui.page("/data")
    def page(request: Request, target: str = "") -> None:
        session = console.open_session(request)
        keys = [each.key for each in console.settings.targets]
        chosen = target if target in keys else keys[0]
        with show_frame(session, console.store, "Data", wide=True):
            select = ui.select(keys, value=chosen, label="Target").props("outlined dense").classes("filter")
            select.on_value_change(lambda: ui.navigate.to(f"/data?target={select.value}"))
            waiting = ui.element("div").classes("line")
            with waiting:
                ui.spinner().props('aria-hidden="true"')
                show_text("Reading everything that Phoenix said …").props("role=status")
            body = ui.element("div").classes("stack")

        async def read() -> None:
            # Takes seconds for a large mirror; the page is shown before that.
            try:
                data = await session.read(lambda: console.data.get(chosen))
            except (LearndError, OSError, StoreUnavailable) as problem:
                waiting.clear()
                with waiting:
                    show_empty_state(
                        "The data cannot be read.", "The settings of the target say how it is read."
                    )
                notify_problem(problem)
                return
            waiting.delete()
            with body:
                _show_data(data)

        ui.timer(0, read, once=True)


def _show_data(data: TargetData) -> None:
    summary = data.summarise()
    _show_counts(summary)
    with show_section("Read them"):
        ui.link("Audit: the odd ones first, beside their spans", build_audit_url(summary.target))
        ExampleList(data)
    _show_dropped(data, summary.dropped)


def _show_counts(summary: DataSummary) -> None:
    with show_section("Examples", "What a cycle that began now would learn from."):
        rows = [
            {
                "kind": WORDS[kind],
                "needed": _describe_threshold(kind, summary.thresholds),
                "to train on": summary.train.get(kind, 0),
                "from telemetry": summary.origins.get(kind, {}).get("telemetry", 0),
                "synthetic": summary.origins.get(kind, {}).get("synthetic", 0),
                "to validate on": summary.validation.get(kind, 0),
            }
            for kind in KINDS
        ]
        show_table("Examples by kind and origin", rows, tuple(rows[0]), numbers=tuple(rows[0])[1:])
        show_facts(
            {
                "Reviewed traffic": summary.reviewed.model_dump(),
                "Held out to judge by": summary.holdout,
                "Left out": summary.left_out,
                "Personal data replaced": summary.replaced,
                "Languages": summary.languages,
                "Phoenix was last asked": format_time(summary.last_poll),
                "It could not be read": summary.last_poll_error,
            }
        )
        for warning in (*summary.warnings, *map(str, summary.unknown_labels)):
            show_text(warning, "problem")


def _describe_threshold(kind: ExampleKind, thresholds: TargetThresholds) -> str:
    least = getattr(thresholds, THRESHOLD_NAMES[kind])
    return f"{least} for, {least} against" if kind == "votes" else str(least)


class ExampleList:
    """The examples of one kind and origin, which people choose, some at a time."""

    def __init__(self, data: TargetData) -> None:
        self._data = data
        self._shown = 0
        filled = [kind for kind in KINDS if data.count_examples(kind)]
        with ui.element("div").classes("filters"):
            self._kind = ui.select(
                {each: WORDS[each] for each in filled or KINDS}, value=(filled or KINDS)[0], label="Kind"
            )
            self._origin = ui.select([ANY, *get_args(Origin)], value=ANY, label="Origin")
            for choice in (self._kind, self._origin):
                choice.props("outlined dense").classes("filter").on_value_change(self._start_again)
        self._list = ui.element("div")
        self._more = ui.button("Show more", on_click=self._show_more).props("flat no-caps color=primary")
        self._show_more()

    def _start_again(self) -> None:
        self._shown = 0
        self._list.clear()
        self._show_more()

    def _show_more(self) -> None:
        origin = None if self._origin.value == ANY else self._origin.value
        found = self._data.list_examples(self._kind.value, origin, offset=self._shown, limit=PAGE_SIZE + 1)
        with self._list:
            if not found:
                show_empty_state(
                    "There are none.", "Approve, correct or reject more of the traffic in Phoenix."
                )
            for example in found[:PAGE_SIZE]:
                _show_example(example)
        self._shown += min(len(found), PAGE_SIZE)
        self._more.set_visibility(len(found) > PAGE_SIZE)


def _show_example(example: ShownExample) -> None:
    with ui.element("article").classes("example"):
        with ui.element("div").classes("line"):
            show_chip(example.origin, "warn" if example.origin == "synthetic" else "plain")
            show_chip(example.split)
            _show_span_links(example.spans)
        show_example(example.example)


def _show_dropped(data: TargetData, dropped: dict[str, int]) -> None:
    with show_section(
        "Dropped", "Calls that became no example, by reason; the newest of each reason have links."
    ):
        if not dropped:
            show_empty_state("Nothing was dropped.")
        for reason, count in sorted(dropped.items(), key=lambda each: -each[1]):
            spans = data.list_dropped_spans(reason)
            with ui.expansion(f"{count} × {reason}").classes("reason"):
                if not spans:
                    show_text("No span stands for it.", "muted")
                with ui.element("div").classes("spans"):
                    _show_span_links(spans[:SPANS])


def _show_span_links(spans: Sequence[SpanLink]) -> None:
    for span in spans:
        link = ui.link(f"span {span.span_id[:8]}", span.url, new_tab=True).classes("span")
        set_aria_label(link.props('rel="noopener noreferrer"'), f"Span {span.span_id[:8]} in Phoenix")
