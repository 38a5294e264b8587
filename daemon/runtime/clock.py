"""The clock of the processes; functions take the time as a parameter."""

from datetime import UTC, datetime, timedelta


def utc_now() -> datetime:
    """Return the current time, aware and in UTC."""
    return datetime.now(UTC)


def is_within(span: timedelta, moment: datetime, now: datetime) -> bool:
    """Return whether less than `span` lies between `moment` and `now`.

    A moment that lies further in the future is from a time when the clock was wrong: it makes nobody wait.
    """
    return abs(now - moment) < span
