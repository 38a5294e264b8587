"""Reads a target's traffic for a command that shows its data before anything else has polled."""

from daemon.cli.output import error_console, remove_control_characters
from daemon.data.first_poll import poll_at_first
from daemon.runtime.context import TargetContext


def read_first_traffic(context: TargetContext) -> None:
    """Poll where the target was never polled; where that cannot be done, say so on stderr."""
    why_not = poll_at_first(context)
    if why_not is not None:
        words = f"Nothing of {context.target.key} was read from Phoenix yet, so its traffic is missing here"
        error_console.print(remove_control_characters(f"{words}: {why_not}"), style="yellow", markup=False)
