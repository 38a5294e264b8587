"""Identifies who sends a request: tokens, accounts, sessions, request limits."""
