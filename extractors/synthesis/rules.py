"""The rules of synthesis and of its filters, as settings hold them."""

from typing import Self

from pydantic import Field, model_validator

from extractors.values import Value


class ScreeningRules(Value):
    """Limits of similarity and of length.

    The similarities are cosines of all-MiniLM-L6-v2, chosen on CLINC150's short questions, 50 of a
    label: at 0.92, 27 % of what people wrote themselves is near another's question, differing in a
    politeness or the order of words ("what are the carry on rules for united" / "what are the carry-on
    restrictions for united"); at 0.8, 61 %, and pairs have different answers ("can you find me a recipe
    for coffee cakes" / "what ingredients are in coffee cakes"). Another encoder may want others.
    """

    near_trained: float = Field(0.92, gt=0, le=1)
    """Similarity from which a proposal repeats what is trained on, or another proposal."""
    near_held_out: float = Field(0.85, gt=0, le=1)
    """Similarity from which it gives away a held-out or golden item: lower, as a proposal too few costs
    less than a measurement that flatters. 39 % of CLINC150's test questions are this near to training."""
    longest: float = Field(2.0, ge=1)
    """Times the longest of the demonstrations."""
    shortest: float = Field(0.3, gt=0, le=1)
    """Times the shortest of them."""


class SynthesisRules(Value):
    """Limits of one synthesis."""

    demonstrations: int = Field(5, ge=1)
    """Approved examples that one call shows."""
    most_shown_characters: int = Field(6000, ge=1)
    """Of the demonstrations of one call: what a small model's context holds beside the system prompt."""
    attempts: int = Field(4, ge=1)
    """Most attempts for each proposal that is wanted; one takes one to three calls."""
    coolest: float = Field(0.7, ge=0, le=2)
    """Lowest temperature by which messages and queries are written."""
    warmest: float = Field(1.1, ge=0, le=2)
    """Highest temperature; each is drawn between the two."""

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if self.coolest > self.warmest:
            raise ValueError("coolest must not be above warmest")
        return self
