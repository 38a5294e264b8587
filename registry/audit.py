"""One line of the audit log: who did what to which target, when, and why."""

from datetime import datetime
from typing import Literal

from extractors.values import Value

Action = Literal[
    "ask for a cycle",
    "judge",
    "activate",
    "deactivate",
    "rollback",
    "hold",
    "release",
    "change base",
    "remove files",
    "import",
    "forget import",
    "decide",
    "close",
    "withdraw",
    "expire",
]

DAEMON = "learnd"
"""The actor of acts that no operator started."""


class AuditEntry(Value):
    """An act that operators may ask about later, logged in the transaction of the act."""

    id: int
    at: datetime
    actor: str
    """An operator's name, or `learnd`."""
    action: Action
    target: str
    subject: str
    """A version id, a batch id, an import's name, or the target itself."""
    detail: str
    """The change and the reason given for it, in words."""
