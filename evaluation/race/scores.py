"""The scores of a contender's answers to the validation side, item by item."""

from extractors.values import Value


class ItemScores(Value):
    """The scores of one contender at one rung."""

    values: tuple[float, ...]
    """By the race's metric, one an item, 0 to 1."""
    valid: tuple[bool, ...] = ()
    correct: tuple[bool, ...] = ()
    seconds: float
    """Time of the answers."""

    @property
    def mean(self) -> float:
        """The mean of the values; 0 without items."""
        return sum(self.values) / len(self.values) if self.values else 0.0
