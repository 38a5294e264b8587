"""Widgets, dialogs, charts, page session."""
