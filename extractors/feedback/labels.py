"""Labels of annotations: which of them approve and which reject, however a tool spells them."""

import re
import unicodedata

APPROVED_LABELS = (
    "approved", "accepted", "correct", "good", "positive", "helpful", "pass", "passed", "like", "liked",
    "upvote", "thumbs_up", "thumbsup", "👍", "+1",
)  # fmt: skip
"""Words that can mean nothing but approval, whatever the annotation is called.

`yes` and `true` are not among them: under a name such as `hallucinated` they say that the response is bad.
"""
REJECTED_LABELS = (
    "rejected", "incorrect", "wrong", "bad", "negative", "unhelpful", "not helpful", "fail", "failed",
    "dislike", "disliked", "downvote", "thumbs_down", "thumbsdown", "👎", "-1",
)  # fmt: skip
"""Words that can mean nothing but rejection."""

_EMOJI_VARIANTS = re.compile("[\U0001f3fb-\U0001f3ff\ufe0e\ufe0f]")
_WORD_BREAKS = re.compile(r"(?<=\w)[-_\s]+(?=\w)")


def normalise_label(label: str) -> str:
    """Return one text for all spellings of a label: case, spaces, hyphens and underscores do not count.

    Nor do skin tones, an emoji's form, and punctuation around the label.
    """
    plain = _EMOJI_VARIANTS.sub("", label).casefold()
    said = [at for at, character in enumerate(plain) if not _surrounds(character)]
    bare = plain[said[0] : said[-1] + 1] if said else plain.strip()
    return _WORD_BREAKS.sub(" ", bare)


def _surrounds(character: str) -> bool:
    """Return whether a character says nothing around a label: a question mark doubts, and -1 is a score."""
    return character.isspace() or (unicodedata.category(character)[0] == "P" and character not in "?-")
