"""Samples of what a target would be trained on beside their spans as recorded, the odd ones first."""

from collections.abc import Sequence
from itertools import groupby
from typing import get_args
from urllib.parse import urlencode

from fastapi import Request
from nicegui import ui

from daemon.console.base.chat_view import show_example
from daemon.console.base.context import ConsoleContext
from daemon.console.base.page_session import notify_problem
from daemon.console.base.widgets import (
    TextTag,
    set_aria_label,
    show_chip,
    show_empty_state,
    show_heading,
    show_section,
    show_table,
    show_text,
)
from daemon.console.frame import show_frame
from daemon.views.data_audit import AuditSample, DataAudit, RecordedField, RecordedSpan, audit_data
from daemon.views.data_summary import KINDS
from daemon.views.status import WORDS
from extractors.errors import LearndError
from registry.store.database import StoreUnavailable
from trainers.planning.plan import ExampleKind

SAMPLES = 20
ANY = "any"


def add_data_audit_page(console: ConsoleContext) -> None:
    """Add the page `/data/audit`."""

    @ui.page("/data/audit")
    def page(request: Request, target: str = "", kind: str = "") -> None:
        session = console.open_session(request)
        keys = [each.key for each in console.settings.targets]
        chosen = target if target in keys else keys[0]
        wanted = next((each for each in get_args(ExampleKind) if each == kind), None)
        with show_frame(session, console.store, "Audit of the data", inside="Data", wide=True):
            _show_filters(keys, chosen, wanted)
            waiting = ui.element("div").classes("line")
            with waiting:
                ui.spinner().props('aria-hidden="true"')
                show_text("Looking at every example …").props("role=status")
            body = ui.element("div").classes("stack")

        async def read() -> None:
            # Takes seconds for a large mirror; the page is shown before that.
            try:
                found = await session.read(
                    lambda: audit_data(console.data.get(chosen), most=SAMPLES, kind=wanted)
                )
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
                _show_audit(found)

        ui.timer(0, read, once=True)


def build_audit_url(target: str, kind: ExampleKind | None = None) -> str:
    """Return the address of the page for a target, and for one kind of its examples."""
    return "/data/audit?" + urlencode({"target": target} | ({"kind": kind} if kind else {}))


def _show_filters(keys: Sequence[str], chosen: str, wanted: ExampleKind | None) -> None:
    with ui.element("div").classes("filters"):
        target = ui.select(list(keys), value=chosen, label="Target")
        kind = ui.select(
            {ANY: ANY} | {each: WORDS[each] for each in KINDS}, value=wanted or ANY, label="Kind"
        )
        for select in (target, kind):
            select.props("outlined dense").classes("filter").on_value_change(
                lambda: ui.navigate.to(
                    build_audit_url(target.value, None if kind.value == ANY else kind.value)
                )
            )


def _show_audit(found: DataAudit) -> None:
    with show_section("Odd examples", "Nothing is left out for these: read them, and mend what wrote them."):
        if not found.distinct:
            show_empty_state(
                "There are no examples.", "Approve, correct or reject more of the traffic in Phoenix."
            )
            return
        show_text(f"{found.odd} of {found.distinct} examples look odd.")
        rows = [{"why": reason, "examples": count} for reason, count in found.oddities.items()]
        if rows:
            show_table("Odd examples by what is odd", rows, ("why", "examples"), numbers=("examples",))
    with show_section(
        "Samples", "The odd ones first, then others by chance. Right beside each: what the tracer wrote."
    ):
        for number, sample in enumerate(found.samples, start=1):
            _show_sample(number, sample)


def _show_sample(number: int, sample: AuditSample) -> None:
    with ui.element("article").classes("example audited"):
        show_heading(f"Sample {number}", 3)
        with ui.element("div").classes("line"):
            for oddity in sample.oddities:
                show_chip(oddity, "warn").classes("long")
            show_chip(sample.verdict)
            show_chip(sample.split)
            for kind in sample.kinds:
                show_chip(WORDS[kind])
        with ui.element("div").classes("beside"):
            with ui.element("div").classes("stack"):
                TextTag("p", "Would be trained on").classes("role")
                show_example(sample.example)
            with ui.element("div").classes("stack"):
                for span in sample.recorded:
                    _show_recorded(span)
                for missing in sample.missing:
                    _show_span_link(missing.span_id, missing.url)
                    show_text("The mirror does not hold this span.", "muted")
                if not sample.recorded and not sample.missing:
                    show_text("It was made of no span.", "muted")


def _show_recorded(span: RecordedSpan) -> None:
    with ui.element("div").classes("line"):
        TextTag("p", "As recorded").classes("role")
        _show_span_link(span.span_id, span.url)
    for root, fields in groupby(span.fields, key=lambda field: field.root):
        _show_fields(root, list(fields))
    if span.omitted:
        show_text(f"{span.omitted} more attributes are not shown.", "muted")


def _show_fields(root: str, fields: Sequence[RecordedField]) -> None:
    with ui.element("div").classes("message"):
        TextTag("span", root).classes("role")
        with ui.element("dl").classes("facts"):
            for field in fields:
                TextTag("dt", field.path or "value")
                with ui.element("dd"):
                    TextTag("pre", field.value).classes("said")


def _show_span_link(span_id: str, url: str) -> None:
    link = ui.link(f"span {span_id[:8]}", url, new_tab=True).classes("span")
    set_aria_label(link.props('rel="noopener noreferrer"'), f"Span {span_id[:8]} in Phoenix")
