"""Decides when a cycle or a second look is due."""
