"""Annotations become verdicts on calls, conversations and searches."""
