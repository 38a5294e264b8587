"""The rules of cleaning, as settings hold them: light, so that reading the settings loads no numpy."""

from pydantic import Field

from extractors.values import Value

NEAR = 0.9
"""Similarity from which two texts count as one.

Chosen on the pairs themselves: of CLINC150's 16,200 short questions 129 (0.8 %) fall at 0.9 ("can you check
the status of my credit card application" / "can you check on the status …"); 5 of them have another
label than what they repeat, 4 of which are one text labelled twice. At 0.85 it is 312 (1.9 %), and pairs
begin to differ in the word that matters ("how many vacation days i have" / "… i have used", "in the nfl" /
"in the nba"); at 0.8, 668 (4.1 %), mostly a politeness more or less, which is variety worth training on.
"""


class QualityRules(Value):
    """Thresholds of similarity, and of the warnings of the statistics."""

    near_duplicate: float = Field(NEAR, ge=0.5, le=1)
    """Similarity (Jaccard, of 3-character shingles) from which prompts with the same answer teach the same:
    the newest stays. 1 removes only what differs in case, white space and punctuation alone."""
    near_held_out: float = Field(NEAR, ge=0.5, le=1)
    """Similarity from which a prompt gives away a held-out or golden one. Equal ones never pass."""
    one_label_share: float = Field(0.8, gt=0, le=1)
    """Share of a single label from which the statistics warn."""
    fewest_per_label: int = Field(5, ge=0)
    """Examples of a label below which the statistics warn."""
