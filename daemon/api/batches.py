"""Routes for batches of synthetic examples: list, read, decide, close."""

from tempfile import TemporaryFile
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field
from starlette.requests import ClientDisconnect

from daemon.access.accounts import Person
from daemon.access.sign_in import Authenticator
from daemon.api.parameters import LARGEST_NUMBER, ActReason, Limit, TargetFilter
from daemon.data.review import BatchReview, ItemPage, ItemView, Ruling
from extractors.values import Value
from registry.batches import Batch, BatchState, ItemState

NDJSON = "application/x-ndjson"
Number = Annotated[int, Path(ge=0, le=LARGEST_NUMBER)]
UPLOAD = {"requestBody": {"required": True, "content": {NDJSON: {"schema": {"type": "string"}}}}}


class Export(Response):
    """Items as lines of JSON."""

    media_type = NDJSON


class BatchClosing(Value):
    """The reason to close a batch before every item is decided."""

    reason: str = Field("", max_length=2000, description="For the audit log.")


class DecidedBatch(Value):
    """The items that were decided, and the batch as it is now."""

    batch: Batch
    decided: tuple[ItemView, ...]


def build_batches_router(review: BatchReview) -> APIRouter:
    """Build the routes that read batches of synthetic examples."""
    router = APIRouter(prefix="/batches", tags=["approvals"])

    @router.get("")
    def list_batches(
        target: TargetFilter = None, state: BatchState | None = None, limit: Limit = 100
    ) -> list[Batch]:
        """Batches of synthetic examples, newest first."""
        return review.store.batches(target, state, limit)

    @router.get("/{batch_id}")
    def show_batch(batch_id: str) -> Batch:
        """One batch: what it was made for and from, and how far it is decided."""
        return review.store.batch(batch_id)

    return router


def build_items_router(review: BatchReview) -> APIRouter:
    """Build the routes that read and export the items of a batch."""
    router = APIRouter(prefix="/batches", tags=["approvals"])

    @router.get("/{batch_id}/items")
    def list_items(
        batch_id: str,
        state: ItemState | None = None,
        after: Annotated[
            int, Query(ge=0, le=LARGEST_NUMBER, description="Only items behind this number.")
        ] = 0,
        before: Annotated[
            int | None, Query(ge=0, le=LARGEST_NUMBER, description="Only items in front of this number.")
        ] = None,
        containing: Annotated[str, Query(description="Words that an item's texts contain.")] = "",
        limit: Limit = 50,
    ) -> ItemPage:
        """Items behind number `after`, and the approved examples that they were made from.

        With `before`, the items in front of that number, the nearest first.
        """
        return review.read_page(
            batch_id, state, after=after, before=before, containing=containing, limit=limit
        )

    @router.get("/{batch_id}/items/{number}")
    def show_item(batch_id: str, number: Number) -> ItemPage:
        """One item, and the approved examples that it was made from."""
        review.find_item(batch_id, number)
        return review.read_page(batch_id, after=number - 1, limit=1)

    @router.get("/{batch_id}/export", response_class=Export)
    def export(batch_id: str) -> Export:
        """The items as JSONL, for review in another tool."""
        headers = {
            "Content-Disposition": f'attachment; filename="{batch_id}.jsonl"',
            "Cache-Control": "no-store",
        }
        return Export("".join(review.export_lines(batch_id)), headers=headers)

    return router


def build_decisions_router(review: BatchReview, authenticator: Authenticator) -> APIRouter:
    """Build the routes that decide, close and withdraw batches."""
    router = APIRouter(prefix="/batches", tags=["approvals"])
    By = Annotated[Person, Depends(authenticator.authorize)]  # noqa: N806 - a type

    def build_answer(batch_id: str, decided: tuple[ItemView, ...]) -> DecidedBatch:
        return DecidedBatch(batch=review.store.batch(batch_id), decided=decided)

    @router.post("/{batch_id}/decisions")
    def decide(batch_id: str, rulings: list[Ruling], by: By) -> DecidedBatch:
        """Approve, reject, edit or take back items: all of them or none; 409 where somebody was quicker."""
        return build_answer(batch_id, review.decide(batch_id, rulings, actor=by.name))

    @router.post("/{batch_id}/close")
    def close(batch_id: str, body: BatchClosing, by: By) -> Batch:
        """Close a batch: train on the items approved so far, and reject the rest."""
        return review.close(batch_id, actor=by.name, reason=body.reason)

    @router.post("/{batch_id}/withdraw")
    def withdraw(batch_id: str, body: ActReason, by: By) -> Batch:
        """Withdraw a batch: train on none of its items, not even approved ones."""
        return review.withdraw(batch_id, actor=by.name, reason=body.reason)

    @router.post("/{batch_id}/import", openapi_extra=UPLOAD)
    async def import_review(batch_id: str, request: Request, by: By) -> DecidedBatch:
        """Decide items as the lines of a reviewed export say.

        422 with line and reason where it is stale or malformed.
        """

        def read_upload() -> DecidedBatch:
            upload.seek(0)
            lines = (line.decode() for line in upload)
            try:
                return build_answer(batch_id, review.import_lines(batch_id, lines, actor=by.name))
            except UnicodeDecodeError as wrong:
                raise HTTPException(422, f"the lines are not UTF-8: {wrong.reason}") from None

        with TemporaryFile() as upload:
            try:
                async for piece in request.stream():
                    upload.write(piece)
            except ClientDisconnect:
                raise HTTPException(400, "the upload ended too early") from None
            return await run_in_threadpool(read_upload)

    return router
