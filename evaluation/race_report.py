"""What came of a race: every contender, its scores and its cost, and why all but one left."""

from extractors.values import Value

LEFT, WON = "left", "won"
ENDINGS = frozenset({LEFT, WON})
"""Stages of the progress lines that say how the race ended for a contender."""


class RungScore(Value):
    """The score of a contender at one point of the race."""

    rung: str
    """`first`, `second`, …; `last` is the end of its training."""
    step: int
    mean: float
    """Mean of the race's metric over the validation items, 0 to 1."""


class RacedContender(Value):
    """One contender and how far it came."""

    name: str
    reason: str
    """Why it was in the race, with the counts that led there."""
    steps: int = 0
    """Optimiser steps of its last stage."""
    seconds: float = 0.0
    """Time of its training and of its answers. A stage that it shares with the default counts there."""
    scores: tuple[RungScore, ...] = ()
    effect: float | None = None
    """Mean difference from the default, -1 to 1; None where it never came so far."""
    p_value: float | None = None
    """One-sided p-value of the paired test that it is better than the default."""
    fresh_effect: float | None = None
    """Mean difference from the default on the items that no earlier race scored; None without such items."""
    left: str = ""
    """Why it left or never entered, in words; empty for the winner."""

    @property
    def entered(self) -> bool:
        """True if it was trained at all."""
        return bool(self.scores)


class RaceReport(Value):
    """The whole race."""

    metric: str
    """The target's primary metric, of answers that the contenders generated."""
    items: int
    """Validation items that all of them answered."""
    sessions: int
    """Sessions that the items come from."""
    level: float
    """Greatest p-value at which a challenger displaces the default: 0.2 divided by their number."""
    contenders: tuple[RacedContender, ...]
    """The default first."""
    winner: str
    """Name of the contender that was registered as the candidate."""
    seconds: float
    """Time of the race: trainings and answers."""
    default_seconds: float
    """Time of the default's training."""
    cost_bound: float
    """The most that `seconds` was allowed to be, as a multiple of `default_seconds`."""
    item_ids: tuple[str, ...]
    """Ids of the validation items."""
    fresh_items: int = 0
    """How many of them no earlier race scored."""

    @property
    def cost(self) -> float:
        """Time of the race as a multiple of the default's."""
        return self.seconds / self.default_seconds if self.default_seconds else 1.0

    def find(self, name: str) -> RacedContender:
        """Return the contender of this name. Raises StopIteration where there is none."""
        return next(each for each in self.contenders if each.name == name)
