"""The language and the script of a text, as far as the text tells."""

import unicodedata
from collections import Counter
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier  # type: ignore[import-untyped]

LEAST_CONFIDENCE = 0.5
"""Below this confidence a language is not named. Of CLINC150's English questions above it, at least 98 % are
identified as English, at any length; most of those under 20 characters stay below."""
ENOUGH_CHARACTERS = 1000
"""Characters of a text that are enough to identify its language."""
UNDETERMINED = "und"


def identify_language(text: str) -> tuple[str, float]:
    """Return the language of `text` (ISO 639) and its confidence, `und` where the text does not tell."""
    start = text[:ENOUGH_CHARACTERS]
    if not start.strip():
        return UNDETERMINED, 0.0
    language, confidence = _load_identifier().classify(start)
    return language, float(confidence)


def identify_script(text: str) -> str | None:
    """Return the script of most letters of `text` by their Unicode names (`LATIN`, `CYRILLIC`), if any."""
    scripts = Counter(
        _find_script(character) for character in text[:ENOUGH_CHARACTERS] if character.isalpha()
    )
    return scripts.most_common(1)[0][0] if scripts else None


@cache
def _find_script(letter: str) -> str:
    name = unicodedata.name(letter, "").split(" ")[0]
    # Japanese mixes three scripts, and Chinese uses one of them.
    return "CJK" if name in {"HIRAGANA", "KATAKANA"} else name


@lru_cache(maxsize=1)
def _load_identifier() -> "LanguageIdentifier":
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True, min_confidence=LEAST_CONFIDENCE)
