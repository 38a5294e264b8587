"""Routes for batches of synthetic examples: list, read, decide, close."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from pydantic import Field

from daemon.access.accounts import Person
from daemon.access.sign_in import Authenticator
from daemon.api.parameters import ActReason, Limit, TargetFilter
from daemon.data.review import BatchReview, ItemPage, ItemView, Ruling
from extractors.values import Value
from registry.batches import Batch, BatchState, ItemState


class BatchClosing(Value):
    """The end of a batch before every item is decided."""

    reason: str = Field("", max_length=2000)


class ReviewUpload(Value):
    """A reviewed export."""

    jsonl: str


class DecidedBatch(Value):
    """What was decided, and how the batch stands now."""

    batch: Batch
    decided: tuple[ItemView, ...]


def build_batches_router(desk: BatchReview) -> APIRouter:
    router = APIRouter(prefix="/batches", tags=["approvals"])

    @router.get("")
    def list_batches(
        target: TargetFilter = None, state: BatchState | None = None, limit: Limit = 100
    ) -> list[Batch]:
        """Batches of synthetic examples, newest first."""
        return desk.store.batches(target, state, limit)

    @router.get("/{batch_id}")
    def show_batch(batch_id: str) -> Batch:
        """One batch: what it was made for and from, and how far it is decided."""
        return desk.store.batch(batch_id)

    @router.get("/{batch_id}/items")
    def list_items(
        batch_id: str,
        state: ItemState | None = None,
        after: int = 0,
        before: int | None = None,
        containing: str = "",
        limit: Limit = 50,
    ) -> ItemPage:
        """Items from the one behind `after` on, and the approved examples that they were made from.

        With `before`, the items in front of that one, the nearest first.
        """
        return desk.page(batch_id, state, after=after, before=before, containing=containing, limit=limit)

    @router.get("/{batch_id}/items/{number}")
    def show_item(batch_id: str, number: int) -> ItemPage:
        """One item, and the approved examples that it was made from."""
        desk.item(batch_id, number)
        return desk.page(batch_id, after=number - 1, limit=1)

    @router.get("/{batch_id}/export", response_class=Response)
    def export(batch_id: str) -> Response:
        """The items as JSONL, for review in another tool."""
        named = {
            "Content-Disposition": f'attachment; filename="{batch_id}.jsonl"',
            "Cache-Control": "no-store",
        }
        return Response(
            "".join(desk.export_lines(batch_id)), headers=named, media_type="application/x-ndjson"
        )

    return router


def build_decisions_router(desk: BatchReview, door: Authenticator) -> APIRouter:
    router = APIRouter(prefix="/batches", tags=["approvals"])
    By = Annotated[Person, Depends(door.allowed)]  # noqa: N806 - a type

    def now(batch_id: str, decided: tuple[ItemView, ...]) -> DecidedBatch:
        return DecidedBatch(batch=desk.store.batch(batch_id), decided=decided)

    @router.post("/{batch_id}/decisions")
    def decide(batch_id: str, rulings: list[Ruling], by: By) -> DecidedBatch:
        """Approve, reject, edit or take back, all of it or nothing; 409 where somebody was quicker."""
        return now(batch_id, desk.decide(batch_id, rulings, actor=by.name))

    @router.post("/{batch_id}/close")
    def close(batch_id: str, asked: BatchClosing, by: By) -> Batch:
        """Train on what was approved so far, and on nothing else of the batch."""
        return desk.close(batch_id, actor=by.name, reason=asked.reason)

    @router.post("/{batch_id}/withdraw")
    def withdraw(batch_id: str, asked: ActReason, by: By) -> Batch:
        """Train on nothing of the batch, whatever was approved."""
        return desk.withdraw(batch_id, actor=by.name, reason=asked.reason)

    @router.post("/{batch_id}/import")
    def import_review(batch_id: str, asked: ReviewUpload, by: By) -> DecidedBatch:
        """Decide what a reviewed export says; 422 with line and reason where it is stale or malformed."""
        return now(batch_id, desk.import_lines(batch_id, asked.jsonl.split("\n"), actor=by.name))

    return router
