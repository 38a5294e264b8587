"""The head of a batch's page: its state, how far it is decided, and where it comes from."""

from nicegui import ui

from daemon.console.base.widgets import TextTag, set_aria_label, show_chip, show_facts, show_text, update_chip
from registry.batches import Batch, BatchState


class BatchHeader:
    """Shows a batch's state; `update` follows the decisions."""

    def __init__(self, batch: Batch) -> None:
        with ui.element("div").classes("line"):
            self._state = show_chip(batch.state)
            TextTag("span", f"{batch.target}: {batch.need}")
        bar = ui.linear_progress(0, show_value=False).props("rounded size=10px")
        self._bar = set_aria_label(bar, "Items decided")
        self._count = show_text("", "muted")
        with ui.expansion("Where it comes from").classes("tools"):
            show_facts(
                {
                    "Written by": batch.provenance.model,
                    "Program": batch.provenance.program,
                    "Seed": batch.provenance.seed,
                    "Asked for by": f"cycle {batch.cycle_id}",
                    "Made": batch.created_at,
                    "Expires": batch.expires_at,
                }
            )

    def update(self, batch: Batch) -> None:
        """Show the batch as it is now."""
        decided = batch.approved + batch.rejected
        update_chip(self._state, batch.state)
        self._bar.set_value(decided / batch.size if batch.size else 1)
        words = f"{decided} of {batch.size} decided: {batch.approved} approved, {batch.rejected} rejected"
        if batch.state is not BatchState.WAITING:
            words += f". {batch.state} by {batch.ended_by}" + (f": {batch.reason}" if batch.reason else "")
        self._count.set_text(words)
