"""Lengths of time and sizes in words."""


def format_gigabytes(count: float) -> str:
    """Format a number of bytes for people, such as `1.5 GiB`."""
    return f"{count / 2**30:.1f} GiB"


def format_duration(seconds: float) -> str:
    """Format a length of time for people, such as `12 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
