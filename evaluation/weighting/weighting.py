"""The weights of a holdout and the strata behind them, as a report holds them."""

from extractors.values import Value


class Stratum(Value):
    """Similar items and calls that one version answered, or several where one has few."""

    answered_by: tuple[str | None, ...]
    """Ids of the versions; None is an unknown one."""
    like: str
    """Beginning of the most typical input."""
    reviewed: int
    """Held-out items."""
    reviewed_share: float
    traffic: int
    """Calls of the sample."""
    traffic_share: float | None
    """None where the traffic is unknown."""
    corrected: int
    rejected: int
    """Items rejected without a correction."""
    weight: float
    """Weight of each of its held-out items, before corrected ones stand for rejected ones; 1 where nobody
    picked."""


class Weighting(Value):
    """Weights that make the holdout represent the traffic, and how well it does without them."""

    weights: dict[str, float]
    """Weight of each item with gold, by its id; 1 on average."""
    effective_n: float
    """The number of items of equal weight that the weighted items are worth (Kish 1965)."""
    selected: bool
    """True if reviewers picked what to review, as far as version and input tell."""
    p_value: float | None
    """How often chance alone makes a holdout this unlike the traffic; None where that cannot be computed."""
    strata: tuple[Stratum, ...]
    """The strata, those with the most traffic first."""
    by_live: tuple[str, ...]
    """Ids of items that the live version answered in production."""
    capped: int
    """Items whose weight would exceed `GREATEST`."""
    unfair: str
    """Why no weights make up for what is missing; empty if they do."""
    words: str
    """The findings in words, for people."""
