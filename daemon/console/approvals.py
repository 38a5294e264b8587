"""The batches of synthetic examples: those that wait to be read, and those that are over."""

from fastapi import Request
from fastapi.responses import RedirectResponse
from nicegui import ui

from daemon.console.frame import frame
from daemon.console.parts import Link, Tagged, ago, chip, heading, moment, nothing, section, table, text
from daemon.console.reading_desk import ReadingDesk
from daemon.console.visit import Console, Visit, to_sign_in
from registry.batches import Batch, BatchState
from registry.store.batches import UnknownBatch

KINDS = {"sft": "prompts with answers", "pairs": "preference pairs", "triplets": "queries with documents"}


def approvals_pages(console: Console) -> None:
    """At `/approvals` and `/approvals/{batch_id}`."""

    @ui.page("/approvals")
    async def batches(request: Request) -> RedirectResponse | None:
        visit = Visit.of(console, request)
        if visit.person is None:
            return to_sign_in(request)
        found = await visit.read(lambda: console.store.batches())
        waiting = [batch for batch in found if batch.state is BatchState.WAITING]
        over = [batch for batch in found if batch.state is not BatchState.WAITING]
        with frame(visit, "Approvals", wide=True):
            with section("Waiting"):
                if not waiting:
                    nothing(
                        "No batch waits to be read.",
                        "Where a target has too little data, a cycle has examples proposed, if its settings "
                        "say `synthesis.enabled = true`. Nothing of them trains before somebody approves it.",
                    )
                for batch in waiting:
                    _waiting(batch, visit)
            if over:
                with section("Over"):
                    table("Batches that are over", map(_row, over), COLUMNS)
        return None

    @ui.page("/approvals/{batch_id}")
    async def batch(request: Request, batch_id: str) -> RedirectResponse | None:
        visit = Visit.of(console, request)
        if visit.person is None:
            return to_sign_in(request)
        with frame(visit, f"Batch {batch_id}", inside="Approvals", wide=True):
            try:
                found = await visit.read(lambda: console.store.batch(batch_id))
            except UnknownBatch as unknown:
                nothing(str(unknown), "The list of approvals has all batches.")
                return None
            desk = ReadingDesk(visit, found)
        await desk.open()
        return None


COLUMNS = ("batch", "target", "kind", "state", "approved", "rejected", "left", "ended", "by", "reason")


def _waiting(batch: Batch, visit: Visit) -> None:
    decided = batch.size - batch.pending
    with ui.element("article").classes("card").props(f'aria-label="Batch {batch.id}"'):
        with ui.element("div").classes("line"):
            heading(batch.target, 3)
            chip(batch.state)
        text(f"{batch.size} {KINDS[batch.kind]}, because there are {batch.need}.")
        bar = ui.linear_progress(decided / batch.size, show_value=False).props("rounded size=8px")
        bar.props(f'aria-label="{decided} of {batch.size} decided"')
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
