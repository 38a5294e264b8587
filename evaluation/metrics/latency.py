"""The candidate's time over that of another side, for the same work on the same machine.

All sides answer the same questions in turn, one at a time as on a server, so that other load on the machine
affects them alike. Each question gives one ratio, and their median is reported: one answer that the machine
held up shifts the mean of 16 ratios, but not their median. The median's bounds are order statistics (the
inverted sign test), which hold their level whatever the distribution of the noise.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median, median_low
from typing import Any, TypeVar

import numpy as np
import scipy

from evaluation.metrics.measures import Overhead
from extractors.values import Value

ROUNDS = 16
"""Questions that are timed."""
MOST_TOKENS = 32
"""Tokens of the longest answer that is timed."""
CONFIDENCE = 0.95
Question = TypeVar("Question")
Clock = Callable[[str, Question], float]
"""Lets a side answer a question and returns the seconds, as `AnswerEngine.time_answer` does."""


class Timings(Value):
    """The seconds that each side took for each question."""

    seconds: Mapping[str, tuple[float, ...]]
    """One figure a question, in their order, by side."""

    def latency_ms(self, side: str) -> float:
        """Return the side's median time in milliseconds."""
        return 1000 * median(self.seconds[side])

    def compute_overhead(self, candidate: str, against: str, *, alpha: float) -> Overhead:
        """Compare `candidate` with `against`; a one-sided bound fails in at most a share `alpha` of cases."""
        return compute_overhead(self.seconds[candidate], self.seconds[against], against=against, alpha=alpha)


def time_sides(
    clock: Clock[Question], sides: Sequence[str], questions: Sequence[Question], *, rounds: int = ROUNDS
) -> Timings:
    """Time all `sides` on `rounds` of the `questions`, spread evenly over these; few questions are repeated.

    There must be at least one question. The side that begins changes from round to round, and a first
    question to each side, which warms it up, does not count.
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
    """Return the tokens of the answers to time: the median of `lengths`, 1 to 32."""
    return min(MOST_TOKENS, max(1, median_low(lengths))) if lengths else MOST_TOKENS


def compute_overhead(
    candidate: Sequence[float], other: Sequence[float], *, against: str, alpha: float
) -> Overhead:
    """Compare the times of `candidate` and `other`, one for each of the same questions (at least one).

    Where the questions are too few for a bound at its level, it is the least or the greatest ratio.
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
