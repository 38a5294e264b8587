"""Shows how far a version on probation is from its second look."""

from nicegui import ui

from daemon.console.base.widgets import set_aria_label, show_text
from daemon.views.status import RunningTargetStatus, describe_wait


class ProbationProgress:
    """Shows the progress of a target's version on probation, or nothing where there is none."""

    def __init__(self) -> None:
        with ui.element("div").classes("need") as self._around:
            self._words = show_text("")
            bar = ui.linear_progress(0, show_value=False).props("rounded size=8px")
            self._bar = set_aria_label(bar, "Newer reviewed calls for the second look")
        self._around.set_visibility(False)

    def show(self, status: RunningTargetStatus) -> None:
        """Show the current status."""
        probation, reviewed = status.probation, status.probation_reviewed
        self._around.set_visibility(probation is not None)
        if probation is None:
            return
        waits = describe_wait(probation, reviewed)
        self._words.set_text(f"{probation.version} is on probation. It waits for {waits}.")
        # Only a running daemon counts reviewed calls, and only once there may be enough.
        self._bar.set_visibility(reviewed is not None)
        self._bar.set_value(min((reviewed or 0) / probation.needs, 1))
