"""The limits of a training: minutes and cost."""

import math

from pydantic import Field

from extractors.values import Value


class Limits(Value):
    """Limits of a run, all its stages and starts together; None means no limit."""

    max_minutes: float | None = Field(None, gt=0)
    max_cost: float | None = Field(None, gt=0)
    price_per_hour: float | None = Field(None, ge=0)
    """Price of the machine, in the currency of `max_cost`."""

    @property
    def seconds(self) -> float:
        """Seconds that time and cost both allow; infinite without a limit."""
        by_time = math.inf if self.max_minutes is None else self.max_minutes * 60
        if self.max_cost is None or not self.price_per_hour:
            return by_time
        return min(by_time, self.max_cost / self.price_per_hour * 3600)

    def __str__(self) -> str:
        by_cost = self.max_cost is not None and self.price_per_hour
        if by_cost and self.seconds < (self.max_minutes or math.inf) * 60:
            return f"max_cost = {self.max_cost:g} at {self.price_per_hour:g} an hour"
        return f"max_minutes = {self.max_minutes:g}" if self.max_minutes else "no limit"
