"""Holdout, training side and retention set, frozen as a snapshot."""
