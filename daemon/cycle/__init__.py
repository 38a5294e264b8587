"""The state machine of one cycle."""
