"""A version on probation, and how far it is from its second look."""

from collections.abc import Mapping
from typing import Any

from nicegui import ui

from daemon.console.base.widgets import labelled, text
from daemon.views.status import waits_for


class Probation:
    """How far a target's version on probation is; nothing where there is none."""

    def __init__(self) -> None:
        with ui.element("div").classes("need") as self._around:
            self._said = text("")
            bar = ui.linear_progress(0, show_value=False).props("rounded size=8px")
            self._bar = labelled(bar, "Newer reviewed calls for the second look")
        self._around.set_visibility(False)

    def show(self, entry: Mapping[str, Any]) -> None:
        """Show how it is now."""
        probation, reviewed = entry["probation"], entry.get("probation_reviewed")
        self._around.set_visibility(probation is not None)
        if probation is None:
            return
        self._said.set_text(f"{probation['version']} is on probation. It waits for {waits_for(entry)}.")
        # Only a running daemon counts them, once there may be enough.
        self._bar.set_visibility(reviewed is not None)
        self._bar.set_value(min((reviewed or 0) / probation["needs"], 1))
