"""Metrics and notifications."""
