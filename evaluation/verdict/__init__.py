"""Paired tests and the decision."""
