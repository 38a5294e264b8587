"""Query and body parameters that several routers share."""

from typing import Annotated

from fastapi import Query
from pydantic import Field

from extractors.values import Value

Limit = Annotated[int, Query(ge=1, le=1000)]


Offset = Annotated[int, Query(ge=0)]


TargetFilter = Annotated[str | None, Query(description="`tenant/agent`; all, if left out.")]


class ActReason(Value):
    """The reason of an act, for the audit log."""

    reason: str = Field(min_length=1, max_length=2000)


class ServingState(Value):
    """What answers for a target now."""

    target: str
    active_version: str | None
    """None: the base model."""
    held: bool
