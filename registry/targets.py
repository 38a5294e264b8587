"""The state of a target, apart from its cycles and versions."""

from datetime import datetime

from extractors.dataset.holdout_split import Window
from extractors.values import Value


def slug(target: str) -> str:
    """Return `tenant.agent` for `tenant/agent`: what folders, adapters and model names are called."""
    return target.replace("/", ".")


class TargetState(Value):
    """One target, as the store holds it; the defaults are those of a target never seen."""

    target: str
    """`tenant/agent`."""
    held: bool = False
    """Automatic promotion is off until an operator releases the target."""
    held_reason: str | None = None
    held_by: str | None = None
    held_at: datetime | None = None
    window_start: datetime | None = None
    """Start of the holdout; this and the next three are the fields of `window`."""
    window_end: datetime | None = None
    window_first: datetime | None = None
    window_retained_to: float | None = None
    feedback_changes: int = 0
    """Subjects (calls, traces, sessions) whose feedback or content changed since the last cycle began."""
    last_poll_at: datetime | None = None
    """When Phoenix was last polled, with or without success."""
    last_poll_error: str | None = None
    """Why the last poll failed; None where it succeeded."""
    last_cycle_at: datetime | None = None
    """When the last cycle began."""
    base_digest: str | None = None
    """Digest of the base model in use; only versions trained on it may be served."""
    last_version_number: int = 0
    """The highest number that a version ever had, so that no number is used twice."""

    @property
    def window(self) -> Window | None:
        """The holdout's window, and what is reserved; None before the first judgement."""
        start, end = self.window_start, self.window_end
        first, retained_to = self.window_first, self.window_retained_to
        if start is None or end is None or first is None or retained_to is None:
            return None
        return Window(start=start, end=end, first=first, retained_to=retained_to)


class TargetDemand(Value):
    """What may make the next cycle of a target due; the defaults are those of a target never seen."""

    target: str
    """`tenant/agent`."""
    unfinished: bool = False
    """Whether a cycle is under way."""
    on_probation: bool = False
    """Whether a version waits for its second look."""
    asked: bool = False
    """Whether an operator asked for a cycle since the last one began."""
    batch_decided: bool = False
    """Whether a batch with something approved has ended since the last cycle began."""
    feedback_changes: int = 0
    """Pieces of feedback, new or changed, since the last cycle began."""
    last_cycle_at: datetime | None = None
    """When the last cycle that trains began."""
    last_cycle_ended_at: datetime | None = None
    """When that cycle took its last step."""
