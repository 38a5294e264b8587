"""Notices of events for people: written in the transaction of the act, delivered later."""

from datetime import datetime, timedelta
from typing import Any, Literal

from extractors.values import Value

Event = Literal["batch.waiting", "cycle.failed", "version.promoted", "version.rolled_back", "jobs.late"]
LONGEST_PAUSE = timedelta(hours=1)
"""Between two tries to deliver a notice."""


class Notice(Value):
    """One event. It holds names, ids and numbers, and no text of the traffic."""

    id: int
    uid: str
    """Unique among all installations of learnd, so that a receiver recognises a notice delivered twice."""
    event: Event
    target: str
    """`tenant/agent`."""
    at: datetime
    details: dict[str, Any]
    """Ids and names by role: `batch`, `cycle`, `version`, `previous_version`, `actor`, …"""


class DueNotice(Value):
    """A notice that is still to be delivered to a receiver."""

    notice: Notice
    attempts: int
    """Deliveries tried so far."""
