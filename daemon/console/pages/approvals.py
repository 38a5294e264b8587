"""The batches of synthetic examples that wait to be read, and those that are over."""

from fastapi import Request
from nicegui import ui

from daemon.console.base.page_session import Console, Visit
from daemon.console.base.widgets import (
    Link,
    Tagged,
    ago,
    chip,
    heading,
    labelled,
    moment,
    nothing,
    section,
    table,
    text,
)
from daemon.console.frame import frame
from daemon.console.review.review_page import ReadingDesk
from registry.batches import Batch, BatchState
from registry.store.batches import UnknownBatch

KINDS = {"sft": "prompts with answers", "pairs": "preference pairs", "triplets": "queries with documents"}
REFRESH_SECONDS = 10.0
SHOWN = 100
"""Batches that are over."""
COLUMNS = ("batch", "target", "kind", "state", "approved", "rejected", "left", "ended", "by", "reason")


def approvals_pages(console: Console) -> None:
    """At `/approvals` and `/approvals/{batch_id}`."""

    @ui.page("/approvals")
    def batches(request: Request) -> None:
        visit = Visit.of(console, request)
        with frame(visit, "Approvals", wide=True):
            body = ui.element("div").classes("stack")
        known: list[list[Batch]] = []

        async def read() -> None:
            nonlocal known
            store = console.store
            waiting = await visit.read(lambda: store.batches(None, BatchState.WAITING))
            newest = await visit.read(lambda: store.batches(limit=SHOWN))
            over = [batch for batch in newest if batch.state is not BatchState.WAITING]
            if known != [waiting, over]:
                known = [waiting, over]
                body.clear()
                with body:
                    _lists(visit, waiting, over)

        visit.every(REFRESH_SECONDS, read)

    @ui.page("/approvals/{batch_id}")
    async def batch(request: Request, batch_id: str, item: int | None = None) -> None:
        visit = Visit.of(console, request)
        found = await visit.read(lambda: _batch(console, batch_id))
        with frame(visit, f"Batch {batch_id}", inside="Approvals", wide=True):
            if found is None:
                nothing(f"There is no batch {batch_id}.", "The list of approvals has all batches.")
                return
            desk = ReadingDesk(visit, found)
            # The demonstrations stand in a snapshot, which may take seconds to read.
            ui.timer(0, lambda: desk.open(item), once=True)


def _batch(console: Console, batch_id: str) -> Batch | None:
    try:
        return console.store.batch(batch_id)
    except UnknownBatch:
        return None


def _lists(visit: Visit, waiting: list[Batch], over: list[Batch]) -> None:
    with section("Waiting"):
        if not waiting:
            nothing(
                "No batch waits to be read.",
                "Where a target has too little data, a cycle has examples proposed, if its settings say "
                "`synthesis.enabled = true`. Nothing of them trains before somebody approves it.",
            )
        for batch in waiting:
            _waiting(batch, visit)
    if over:
        with section("Over", f"The newest {SHOWN}." if len(over) >= SHOWN else ""):
            table("Batches that are over", map(_row, over), COLUMNS)


def _waiting(batch: Batch, visit: Visit) -> None:
    decided = batch.size - batch.pending
    with labelled(ui.element("article"), f"Batch {batch.id}").classes("card"):
        with ui.element("div").classes("line"):
            heading(batch.target, 3)
            chip(batch.state)
        text(f"{batch.size} {KINDS[batch.kind]}, because there are {batch.need}.")
        bar = ui.linear_progress(decided / batch.size, show_value=False).props("rounded size=8px")
        labelled(bar, f"{decided} of {batch.size} decided")
        text(
            f"{decided} of {batch.size} decided · made {ago(batch.created_at, visit.console.clock())} by "
            f"{batch.provenance.model} · expires {moment(batch.expires_at)}",
            "muted",
        )
        with ui.link(target=f"/approvals/{batch.id}").classes("todo"):
            Tagged("span", "Read them" if visit.may_decide else "Look at them")


def _row(batch: Batch) -> dict[str, object]:
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
