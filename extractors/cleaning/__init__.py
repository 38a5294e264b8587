"""Removes or replaces what must not be trained on: flaws, near-duplicates, personal data."""
