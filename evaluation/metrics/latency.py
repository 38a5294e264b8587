"""How much longer does the candidate take than another side, for the same work on the same machine?

All sides do the same questions, one at a time as a server is asked, taking turns, so that whatever else
the machine does falls on all of them alike; each question gives one ratio. Their median is reported: one
answer that the machine held up shifts a mean of 16 ratios, but not what half of them exceed. Its bounds
are order statistics (the sign test turned round), which hold their level whatever the noise looks like.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median, median_low
from typing import Any, TypeVar

import numpy as np
import scipy

from extractors.values import Value

ROUNDS = 16
"""Questions that are timed."""
MOST_TOKENS = 32
"""Longest answer that is timed."""
CONFIDENCE = 0.95
Question = TypeVar("Question")
Clock = Callable[[str, Question], float]
"""Has a side do a question, and returns the seconds; `AnswerEngine.seconds`, `Encoder.seconds`, a server."""


class Overhead(Value):
    """The candidate's time over that of one other side."""

    against: str
    n: int
    """Questions that both did."""
    ratio: float
    """Median over the questions, above 0: 1.2 is 20% slower."""
    interval: tuple[float, float]
    """95% interval of that median."""
    lower: float
    """The median is above this, one-sided at the test's level."""
    upper: float
    """The median is below this, one-sided at the test's level: what non-inferiority is judged by."""


class Timings(Value):
    """What each question took each side."""

    seconds: Mapping[str, tuple[float, ...]]
    """By side, one figure a question, in the order of the questions."""

    def latency_ms(self, side: str) -> float:
        """Median, in milliseconds."""
        return 1000 * median(self.seconds[side])

    def compute_overhead(self, candidate: str, against: str, *, alpha: float) -> Overhead:
        """`candidate` over `against`; its one-sided bounds each fail at most a share `alpha` of the time."""
        return compute_overhead(self.seconds[candidate], self.seconds[against], against=against, alpha=alpha)


def time_sides(
    clock: Clock[Question], sides: Sequence[str], questions: Sequence[Question], *, rounds: int = ROUNDS
) -> Timings:
    """Have all `sides` do so many of `questions`, spread evenly over them; few come again, one is needed.

    Who begins changes from round to round, and a first round, which warms up, does not count.
    """
    chosen = [questions[number * len(questions) // rounds] for number in range(rounds)]
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for side in sides:
        clock(side, chosen[0])
    for number, question in enumerate(chosen):
        first = number % len(sides)
        for side in (*sides[first:], *sides[:first]):
            seconds[side].append(clock(side, question))
    return Timings(seconds={side: tuple(taken) for side, taken in seconds.items()})


def find_typical_length(lengths: Sequence[int]) -> int:
    """How long an answer is timed, in tokens: the median of `lengths`, 1 to 32."""
    return min(MOST_TOKENS, max(1, median_low(lengths))) if lengths else MOST_TOKENS


def compute_overhead(
    candidate: Sequence[float], other: Sequence[float], *, against: str, alpha: float
) -> Overhead:
    """How much longer `candidate` took, from one time a question of each (the same questions, 1 or more).

    A bound that so few questions cannot give at its level is the least or the greatest ratio.
    """
    ratios = np.divide(candidate, other)
    low, high = _compute_bounds(ratios, "two-sided", CONFIDENCE)
    return Overhead(
        against=against,
        n=len(ratios),
        ratio=float(np.median(ratios)),
        interval=(low, high),
        lower=_compute_bounds(ratios, "greater", 1 - alpha)[0],
        upper=_compute_bounds(ratios, "less", 1 - alpha)[1],
    )


def _compute_bounds(ratios: np.ndarray[Any, Any], alternative: str, confidence: float) -> tuple[float, float]:
    found = scipy.stats.quantile_test(ratios, p=0.5, alternative=alternative).confidence_interval(confidence)
    low, high = float(found.low), float(found.high)
    return (
        float(ratios.min()) if math.isnan(low) else low,
        float(ratios.max()) if math.isnan(high) else high,
    )
