"""Checks that a call must pass before it may teach anything."""
