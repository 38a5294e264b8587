"""Batches of synthetic examples: those that wait to be read, and those that are over."""

from datetime import datetime

from fastapi import Request
from nicegui import ui

from daemon.console.base.context import ConsoleContext
from daemon.console.base.widgets import (
    Link,
    TextTag,
    format_age,
    format_time,
    set_aria_label,
    show_chip,
    show_empty_state,
    show_heading,
    show_section,
    show_table,
    show_text,
)
from daemon.console.frame import show_frame
from daemon.console.review.review_page import ReviewPage
from registry.batches import Batch, BatchState
from registry.store.batches import UnknownBatch
from registry.store.store import Store

KINDS = {"sft": "prompts with answers", "pairs": "preference pairs", "triplets": "queries with documents"}
REFRESH_SECONDS = 10.0
MOST_OVER = 100
"""Batches that are over, and are listed."""
COLUMNS = ("batch", "target", "kind", "state", "approved", "rejected", "left", "ended", "by", "reason")


def add_approvals_pages(console: ConsoleContext) -> None:
    """Add the pages `/approvals` and `/approvals/{batch_id}`."""

    @ui.page("/approvals")
    def batches(request: Request) -> None:
        session = console.open_session(request)
        with show_frame(session, console.store, "Approvals", wide=True):
            body = ui.element("div").classes("stack")
        shown: list[list[Batch]] = []

        async def read() -> None:
            nonlocal shown
            store = console.store
            waiting = await session.read(lambda: store.batches(None, BatchState.WAITING))
            newest = await session.read(lambda: store.batches(limit=MOST_OVER))
            over = [batch for batch in newest if batch.state is not BatchState.WAITING]
            if shown != [waiting, over]:
                shown = [waiting, over]
                body.clear()
                with body:
                    _show_batches(waiting, over, console.clock(), may_decide=session.may_decide)

        session.refresh_every(REFRESH_SECONDS, read)

    @ui.page("/approvals/{batch_id}")
    async def batch(request: Request, batch_id: str, item: int | None = None) -> None:
        session = console.open_session(request)
        found = await session.read(lambda: _find_batch(console.store, batch_id))
        with show_frame(session, console.store, f"Batch {batch_id}", inside="Approvals", wide=True):
            if found is None:
                show_empty_state(f"There is no batch {batch_id}.", "The list of approvals has all batches.")
                return
            review = ReviewPage(session, console.review, found)
            # The demonstrations are in a snapshot, which may take seconds to read.
            ui.timer(0, lambda: review.open(item), once=True)


def _find_batch(store: Store, batch_id: str) -> Batch | None:
    try:
        return store.batch(batch_id)
    except UnknownBatch:
        return None


def _show_batches(waiting: list[Batch], over: list[Batch], now: datetime, *, may_decide: bool) -> None:
    with show_section("Waiting"):
        if not waiting:
            show_empty_state(
                "No batch waits to be read.",
                "Where a target has too little data, a cycle has examples proposed, if its settings say "
                "`synthesis.enabled = true`. None of them is trained on before somebody approves it.",
            )
        for batch in waiting:
            _show_waiting_batch(batch, now, may_decide=may_decide)
    if over:
        with show_section("Over", f"The newest {MOST_OVER}." if len(over) >= MOST_OVER else ""):
            show_table("Batches that are over", map(_build_row, over), COLUMNS)


def _show_waiting_batch(batch: Batch, now: datetime, *, may_decide: bool) -> None:
    decided = batch.size - batch.pending
    with set_aria_label(ui.element("article"), f"Batch {batch.id}").classes("card"):
        with ui.element("div").classes("line"):
            show_heading(batch.target, 3)
            show_chip(batch.state)
        show_text(f"{batch.size} {KINDS[batch.kind]}, because there are {batch.need}.")
        bar = ui.linear_progress(decided / batch.size, show_value=False).props("rounded size=8px")
        set_aria_label(bar, f"{decided} of {batch.size} decided")
        show_text(
            f"{decided} of {batch.size} decided · made {format_age(batch.created_at, now)} by "
            f"{batch.provenance.model} · expires {format_time(batch.expires_at)}",
            "muted",
        )
        with ui.link(target=f"/approvals/{batch.id}").classes("todo"):
            TextTag("span", "Read them" if may_decide else "Look at them")


def _build_row(batch: Batch) -> dict[str, object]:
    return {
        "batch": Link(batch.id, f"/approvals/{batch.id}"),
        "target": batch.target,
        "kind": batch.kind,
        "state": str(batch.state),
        "approved": batch.approved,
        "rejected": batch.rejected,
        "left": batch.pending,
        "ended": batch.ended_at,
        "by": batch.ended_by,
        "reason": batch.reason,
    }
