"""What happened that a person may want to be told of: written with the act itself, delivered later."""

from datetime import datetime
from typing import Any, Literal

from extractors.values import Value

Event = Literal["batch.waiting", "cycle.failed", "version.promoted", "version.rolled_back"]


class Notice(Value):
    """One event. It holds names, ids and numbers, and no text of the traffic."""

    id: int
    event: Event
    target: str
    """`tenant/agent`."""
    at: datetime
    details: dict[str, Any]
    """Ids by what they name: `batch`, `cycle`, `version`, `previous_version`, …"""


class Due(Value):
    """A notice that a receiver has not been told of yet."""

    notice: Notice
    attempts: int = 0
    """How often it was tried."""
