"""The records of one call, brought together: they fill gaps, and must not contradict each other."""
