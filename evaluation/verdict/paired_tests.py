"""Is the candidate better than another side? A paired comparison of their answers to the same items.

Both sides answered the same items, so only the items on which they differ say anything. The items of a
session are judged together: if the sides are equal, the difference of a whole session could as well have
the other sign (Fisher 1935). Where every session has one item, right or wrong, that is McNemar's exact test
(1947). Pure functions: scores in, numbers out. The interval is computed apart from the gain, because its
resampling would slow down a simulation of decisions.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from math import ceil, gcd, sqrt

import numpy as np
import scipy

from evaluation.report import PairedComparison
from extractors.errors import LearndError
from extractors.values import Value

POWER = 0.8
"""Chance with which a test must find its smallest effect."""
RESAMPLES = 2000
STEPS = 100_000
"""Steps into which the exact test divides the sum of all differences, so that small ones count, too."""


class UnpairedOutcomes(LearndError):
    """The two sides did not answer the same items; score both on one holdout."""


class PairedCounts(Value):
    """On how many items two sides differ, where each answer is right or wrong."""

    n: int
    """Items with gold that both sides answered."""
    gained: int
    """Items that only the candidate got right."""
    lost: int
    """Items that only the other side got right."""

    @property
    def churn(self) -> float:
        """Share of the items that changed without changing the accuracy: as many gained as lost.

        One more change is assumed, so the share is never 0.
        """
        return min(1.0, (2 * min(self.gained, self.lost) + 1) / self.n) if self.n else 1.0


class Gain(Value):
    """The candidate's gain over another side by one metric, as the verdict needs it."""

    metric: str
    effect: float
    """Mean difference, -1 to 1."""
    p_better: float
    """One-sided p-value: how often a candidate that is no better gains this much by chance."""
    p_worse: float
    """The p-value of the same test in the other direction."""
    items: int
    """Items with gold that both sides answered."""
    worth: float
    """The number of independent items of equal weight that the items are worth, a session counting as one."""
    churn: float = 1.0
    """As `PairedCounts.churn`, for answers that are right or wrong."""
    spread: float | None = None
    """Standard deviation of the differences of graded scores; None where answers are right or wrong."""
    other: float = 0.0
    """The other side's mean, 0 to 1."""

    def find_smallest_effect(self, level: float) -> float:
        """Return the smallest difference that the items show with power 0.8, at p <= `level`."""
        if self.spread is None:
            return find_smallest_effect(round(self.worth), self.churn, level)
        return _find_normal_effect(self.worth, self.spread, level)

    def count_lacking_items(self, effect: float, level: float) -> int:
        """Return about how many further items, worth as much as these, show `effect` with power 0.8."""
        if self.spread is None:
            needed: float = find_items_needed(effect, self.churn, level)
        else:
            needed = (self.spread * _count_deviations(level) / effect) ** 2
        return max(1, ceil((needed - self.worth) * (self.items / self.worth if self.worth else 1.0)))


def compute_gain_of_counts(counts: PairedCounts, *, metric: str = "accuracy", other: float = 0.0) -> Gain:
    """Return the gain of right and wrong answers to independent items."""
    return Gain.model_construct(
        metric=metric,
        effect=(counts.gained - counts.lost) / counts.n if counts.n else 0.0,
        p_better=compute_mcnemar_p(counts.gained, counts.lost),
        p_worse=compute_mcnemar_p(counts.lost, counts.gained),
        items=counts.n,
        worth=counts.n,
        churn=counts.churn,
        spread=None,
        other=other,
    )


@lru_cache(maxsize=1 << 16)
def compute_mcnemar_p(gained: int, lost: int) -> float:
    """Return the exact one-sided p-value of `gained` against `lost` items: the binomial tail."""
    return float(scipy.stats.binom.sf(gained - 1, gained + lost, 0.5)) if gained + lost else 1.0


def compute_sign_flip_p(changes: Iterable[int]) -> float:
    """Return the exact one-sided p-value of a sum: how often random signs make it as large.

    `changes` has one number a session. Where all are equal in size, this is `compute_mcnemar_p`.
    """
    moved = [change for change in changes if change]
    unit = reduce(gcd, moved, 0)
    sizes = [abs(change) // unit for change in moved]
    gained = sum(change // unit for change in moved if change > 0)
    if set(sizes) <= {1}:
        return compute_mcnemar_p(gained, len(sizes) - gained)
    # How often the sizes that happen to be positive add up to each number.
    chances = np.zeros(sum(sizes) + 1)
    chances[0] = 1.0
    reached = 0
    for size in sizes:
        chances[size : reached + size + 1] += chances[: reached + 1].copy()
        chances[: reached + size + 1] /= 2
        reached += size
    return min(1.0, float(chances[gained:].sum()))


def adjust_by_holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values, in their order, adjusted for their number (Holm 1979)."""
    adjusted, greatest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        greatest = max(greatest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = greatest
    return adjusted


@dataclass(frozen=True)
class PairedScores:
    """The scores of the candidate and of another side on the same items, one of each an item.

    A score is right (1) or wrong (0), or graded in between. Raises UnpairedOutcomes where the numbers of
    items differ.
    """

    candidate: Sequence[float]
    other: Sequence[float]
    sessions: Sequence[Hashable]
    """One key an item; items with the same key are not independent."""
    weights: Sequence[float] | None = None
    """One weight an item, 1 on average; None weighs all the same."""

    def __post_init__(self) -> None:
        for compared in (self.other, self.sessions):
            if len(self.candidate) != len(compared):
                raise UnpairedOutcomes(
                    f"one side has {len(self.candidate)} outcomes, the other has {len(compared)}"
                )

    @property
    def weight(self) -> np.ndarray:
        """The items' weights, shape (items,)."""
        return np.ones(len(self.candidate)) if self.weights is None else np.asarray(self.weights, float)

    @property
    def differences(self) -> np.ndarray:
        """The candidate's score minus the other side's, shape (items,)."""
        return np.asarray(self.candidate, dtype=float) - np.asarray(self.other, dtype=float)

    @property
    def counts(self) -> PairedCounts:
        pairs = list(zip(self.candidate, self.other, strict=True))
        return PairedCounts(
            n=len(pairs), gained=sum(c > o for c, o in pairs), lost=sum(c < o for c, o in pairs)
        )

    def sum_by_session(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the weighted differences and the weights, each summed by session, shape (sessions,)."""
        return _sum_by_session(self.differences * self.weight, self.weight, self.sessions)


def compare_scores(
    scores: PairedScores, *, against: str, level: float, metric: str = "accuracy", seed: int = 0
) -> PairedComparison:
    """Return the whole comparison of the candidate with the side named `against`, by one metric.

    `level` is the p-value for the smallest effect that the items could have shown.
    """
    gain, counts = compute_gain(scores, metric), scores.counts
    return PairedComparison(
        against=against,
        metric=metric,
        n=counts.n,
        effective_n=gain.worth,
        gained=counts.gained,
        lost=counts.lost,
        effect=gain.effect,
        means=(gain.other + gain.effect, gain.other),
        p_value=gain.p_better,
        p_worse=gain.p_worse,
        interval=bootstrap_interval(scores, seed=seed),
        smallest_effect=gain.find_smallest_effect(level),
        level=level,
    )


def compute_gain(scores: PairedScores, metric: str = "accuracy") -> Gain:
    """Return what the verdict needs of a comparison."""
    counts, weight = scores.counts, scores.weight
    if not counts.n:
        return compute_gain_of_counts(counts, metric=metric)
    changes, sizes = scores.sum_by_session()
    # A whole number of steps, so that differences of 1 stay equal.
    unit = max(1, int(STEPS / max(np.abs(changes).sum(), 1e-9)))
    steps = [round(unit * change) for change in changes]
    old = np.asarray(scores.other, dtype=float)
    binary = bool(np.isin(np.concatenate([scores.candidate, old]), (0.0, 1.0)).all())
    return Gain(
        metric=metric,
        effect=float(changes.sum() / sizes.sum()),
        p_better=compute_sign_flip_p(steps),
        p_worse=compute_sign_flip_p(-step for step in steps),
        items=counts.n,
        worth=count_effective_items(weight, scores.sessions),
        churn=counts.churn,
        spread=None if binary else _compute_spread(scores.differences),
        other=float((old * weight).sum() / weight.sum()),
    )


def _compute_spread(differences: np.ndarray) -> float:
    """Return their standard deviation with one more difference of 1, so that it is never 0."""
    return sqrt((((differences - differences.mean()) ** 2).sum() + 1) / len(differences))


def count_effective_items(weights: Sequence[float] | np.ndarray, sessions: Sequence[Hashable]) -> float:
    """Return the number of independent items of equal weight that the items are worth.

    This is Kish's effective sample size (1965) of the sessions' weights. It is a low bound, as if all items
    of a session said the same.
    """
    _, sizes = _sum_by_session(np.zeros(len(weights)), np.asarray(weights, dtype=float), sessions)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def bootstrap_interval(scores: PairedScores, *, seed: int = 0) -> tuple[float, float]:
    """Return the 95% percentile bootstrap interval of the mean difference, resampling whole sessions.

    Turns of one session are not independent. With fewer than two sessions nothing can be
    resampled, and the interval is (-1, 1).
    """
    if len(set(scores.sessions)) < 2:
        return -1.0, 1.0
    found = scipy.stats.bootstrap(
        scores.sum_by_session(),
        lambda change, size, axis: change.sum(axis=axis) / size.sum(axis=axis),
        paired=True,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def compute_least_difference(n: float, gained: float, lost: float, alpha: float) -> float:
    """Return the lower end of the one-sided interval at level `alpha` of the difference of two paired shares.

    This is the score interval of Tango (1998), which holds its level for few items and shares near 1, where
    the usual interval of n = 80 without a difference would be a point.
    """
    z = float(scipy.stats.norm.isf(alpha))
    if not n:
        return -1.0

    def too_low(difference: float) -> float:
        # Share of losses that fits the counts best where the difference is this.
        slope = (2 * n - gained + lost) * difference - gained - lost
        rest = -lost * difference * (1 - difference)
        share = (sqrt(max(slope**2 - 8 * n * rest, 0.0)) - slope) / (4 * n)
        variance = n * (2 * share + difference * (1 - difference))
        return gained - lost - n * difference - z * sqrt(max(variance, 0.0))

    if too_low(-1.0) <= 0:
        return -1.0
    # Just below the measured difference, which is itself a root where nothing changed.
    return float(scipy.optimize.brentq(too_low, -1.0, (gained - lost) / n - 1e-9))


@lru_cache(maxsize=4096)
def find_smallest_effect(n: int, churn: float, alpha: float) -> float:
    """Return the smallest change in accuracy that `n` items show with power 0.8.

    `churn` is the share of items that change in both directions beside the effect. Returns 1.0 where
    `n` items can show nothing.
    """
    if n == 0 or compute_power(n, 1.0, 0.0, alpha) < POWER:
        return 1.0
    low, high = 0.0, 1.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        if compute_power(n, middle, churn, alpha) < POWER:
            low = middle
        else:
            high = middle
    return high


@lru_cache(maxsize=4096)
def find_items_needed(effect: float, churn: float, alpha: float, most: int = 20_000) -> int:
    """Return about how many items show `effect` with power 0.8; at most `most`."""
    low, high = 0, most
    while high - low > max(1, low // 50):
        middle = (low + high) // 2
        if compute_power(middle, effect, churn, alpha) < POWER:
            low = middle
        else:
            high = middle
    return high


def compute_power(n: int, effect: float, churn: float, alpha: float) -> float:
    """Return how often the exact test of `n` items finds `effect`, averaged over the number that differ."""
    differing = np.arange(n + 1)
    discordance = min(1.0, churn + effect)
    # isf gives the least k with P(K > k) <= alpha, so k + 1 gained items are significant.
    needed = scipy.stats.binom.isf(alpha, differing, 0.5) + 1
    found = scipy.stats.binom.sf(needed - 1, differing, (discordance + effect) / (2 * discordance))
    return float((scipy.stats.binom.pmf(differing, n, discordance) * found).sum())


def _find_normal_effect(n: float, spread: float, alpha: float) -> float:
    """Return the smallest mean difference that `n` graded items show, by the normal approximation."""
    return min(1.0, _count_deviations(alpha) * spread / sqrt(n)) if n else 1.0


def _count_deviations(alpha: float) -> float:
    """Return the standard errors between no effect and one that is found with power 0.8."""
    return float(scipy.stats.norm.isf(alpha) + scipy.stats.norm.ppf(POWER))


def _sum_by_session(
    moved: np.ndarray, weights: np.ndarray, sessions: Sequence[Hashable]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of the differences and of the weights of each session, shape (sessions,)."""
    sums: defaultdict[Hashable, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for change, weight, session in zip(moved.tolist(), weights.tolist(), sessions, strict=True):
        sums[session][0] += change
        sums[session][1] += weight
    found = np.array(list(sums.values())).reshape(-1, 2)
    return found[:, 0], found[:, 1]
