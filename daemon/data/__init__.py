"""A target's data now: polled, imported, synthesised, reviewed."""
