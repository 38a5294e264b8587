"""Query and body parameters that several routers share."""

from typing import Annotated

from fastapi import Query
from pydantic import Field

from extractors.values import Value

Limit = Annotated[int, Query(ge=1, le=1000, description="The most entries to return.")]
Offset = Annotated[int, Query(ge=0, description="Entries to leave out at the beginning.")]
TargetFilter = Annotated[str | None, Query(description="`tenant/agent`; all targets if left out.")]


class ActReason(Value):
    """The reason of an action, for the audit log."""

    reason: str = Field(min_length=1, max_length=2000, description="For the audit log.")


class ServingState(Value):
    """The version that a target serves now."""

    target: str
    active_version: str | None
    """Null: the base model."""
    held: bool
