"""Reads the items of one batch, one at a time or in pages, by a filter."""

from dataclasses import dataclass, replace
from typing import Any

from daemon.console.base.page_session import PageSession
from daemon.data.review import BatchReview, ItemPage, ItemView
from registry.batches import ItemState


@dataclass(frozen=True)
class ItemFilter:
    """The items that an operator wants to see."""

    state: ItemState | None = None
    """None: any."""
    containing: str = ""
    """Words that its texts contain."""

    def with_state(self, state: ItemState) -> "ItemFilter":
        """Return the same filter for another state."""
        return replace(self, state=state)


class ItemReader:
    """Reads items, and keeps the demonstrations that came with them."""

    def __init__(self, session: PageSession, review: BatchReview, batch_id: str) -> None:
        self._session = session
        self._review = review
        self._batch_id = batch_id
        self._demonstrations: dict[str, dict[str, Any]] = {}

    async def read_page(
        self, shown: ItemFilter, *, after: int = 0, before: int | None = None, limit: int = 1
    ) -> tuple[ItemView, ...]:
        """Return the items behind `after`, or those in front of `before`, the nearest first."""
        page = await self._session.read(lambda: self._read(shown, after, before, limit))
        self._demonstrations.update(page.demonstrations)
        return page.items

    async def find(self, shown: ItemFilter, *, after: int = 0, before: int | None = None) -> ItemView | None:
        """Return the first item behind `after`, or the nearest in front of `before`; None where none fits."""
        items = await self.read_page(shown, after=after, before=before)
        return items[0] if items else None

    async def find_number(self, number: int) -> ItemView | None:
        """Return the item as it is now, whatever is filtered for; None where there is none."""
        item = await self.find(ItemFilter(), after=number - 1)
        return item if item and item.number == number else None

    def find_demonstrations(self, item: ItemView) -> list[dict[str, Any]]:
        """Return the approved examples that the item was made from, without those that are gone."""
        known = self._demonstrations
        return [known[each] for each in item.demonstrations if each in known]

    def _read(self, shown: ItemFilter, after: int, before: int | None, limit: int) -> ItemPage:
        return self._review.read_page(
            self._batch_id,
            shown.state,
            after=after,
            before=before,
            containing=shown.containing,
            limit=limit,
        )
