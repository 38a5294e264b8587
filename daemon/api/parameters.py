"""Query and body parameters that several routers share."""

import json
from datetime import datetime
from typing import Annotated

from fastapi import HTTPException, Query, Request
from pydantic import AfterValidator, AwareDatetime, Field

from daemon.access.bodies import JSON
from extractors.values import Value

LARGEST_NUMBER = 2**31 - 1
Limit = Annotated[int, Query(ge=1, le=1000, description="The most entries to return.")]
Offset = Annotated[int, Query(ge=0, le=LARGEST_NUMBER, description="Entries to leave out at the beginning.")]
TargetFilter = Annotated[str | None, Query(description="`tenant/agent`; all targets if left out.")]


def check_year(moment: datetime) -> datetime:
    """Return `moment`. Raises ValueError where it could not be converted to another time zone."""
    if not 1 < moment.year < 9999:
        raise ValueError("must be of a year between 2 and 9998")
    return moment


Moment = Annotated[AwareDatetime, AfterValidator(check_year)]


async def refuse_broken_text(request: Request) -> None:
    """Refuse a JSON body with half of a surrogate pair, which no file or database can hold. A dependency.

    Raises HTTPException (422).
    """
    if not request.headers.get("Content-Type", "").lower().startswith(JSON):
        return
    try:
        sent = await request.json()
    except (ValueError, RecursionError):
        return  # A route that reads a body says what is wrong with it.
    try:
        json.dumps(sent, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise HTTPException(422, "the body has half of a surrogate pair, which is no character") from None
    except RecursionError:
        raise HTTPException(422, "the body is nested too deeply") from None


class ActReason(Value):
    """The reason of an action, for the audit log."""

    reason: str = Field(min_length=1, max_length=2000, description="For the audit log.")


class ServingState(Value):
    """The version that a target serves now."""

    target: str
    active_version: str | None
    """Null: the base model."""
    held: bool
