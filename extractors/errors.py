"""The root of the errors that learnd raises on purpose.

An error says what happened, where, and what to do about it. This file imports nothing, so that the command
line can report an error without loading a stage.
"""


class LearndError(Exception):
    """Root of every error that learnd raises on purpose."""
