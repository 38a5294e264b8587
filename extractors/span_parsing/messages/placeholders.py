"""Texts that tracers and privacy filters put in the place of what was said."""

PLACEHOLDERS = frozenset(
    {"__REDACTED__", "[REDACTED]", "<REDACTED>", "REDACTED", "[Filtered]", "<masked>", "[MASKED]", "***"}
)
SCRUBBED = "[Scrubbed due to "
"""What Logfire puts in the place of a text that looks secret, with its reason."""


def is_placeholder(text: str) -> bool:
    """Return whether `text` stands for a text that was hidden, or holds one that was."""
    return text.strip() in PLACEHOLDERS or SCRUBBED in text
