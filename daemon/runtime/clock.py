"""What time it is, for all that takes the time as a parameter."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    return datetime.now(UTC)
