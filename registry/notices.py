"""What happened that a person may want to be told of: written with the act itself, delivered later."""

from datetime import datetime
from typing import Any, Literal

from extractors.values import Value

Event = Literal["batch.waiting", "cycle.failed", "version.promoted", "version.rolled_back"]


class Notice(Value):
    """One event. It holds names, ids and numbers, and no text of the traffic."""

    id: int
    uid: str
    """Unique among all installations of learnd; a receiver told twice knows it by this."""
    event: Event
    target: str
    """`tenant/agent`."""
    at: datetime
    details: dict[str, Any]
    """What was concerned, by what it is: `batch`, `cycle`, `version`, `previous_version`, `actor`, …"""


class DueNotice(Value):
    """A notice that a receiver has not been told of yet."""

    notice: Notice
    attempts: int
    """How often that was tried."""
