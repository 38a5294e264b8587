"""Is the candidate better than another side? Paired comparison of what both said to the same items.

Both sides answered the same items, so only the items on which they differ say anything. What belongs to
one session stands or falls together: under the hypothesis that the sides are equal, the difference of a
whole session could as well have the other sign (Fisher 1935). Where every session has one item, right or
wrong, that is McNemar's exact test (1947). Pure functions: outcomes in, numbers out. The interval stands
apart, because its resampling would slow down whoever simulates decisions.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache, reduce
from math import ceil, gcd, sqrt

import numpy as np
import scipy

from evaluation.report import Comparison
from extractors.errors import LearndError
from extractors.values import Value

POWER = 0.8
"""How often a smallest effect must be found."""
RESAMPLES = 2000
STEPS = 100_000
"""In which the exact test counts all differences together, so that small ones count, too."""


class UnpairedOutcomes(LearndError):
    """The two sides did not answer the same items; score both on one holdout."""


class Pairs(Value):
    """How the outcomes of two sides on the same items differ, where each is right or wrong."""

    n: int
    """Items that both sides answered and that have gold."""
    gained: int
    """Items that only the candidate got right."""
    lost: int
    """Items that only the other side got right."""

    @property
    def churn(self) -> float:
        """Share of the items that changed without changing the accuracy, as many gained as lost.

        One more is assumed, so it is never 0.
        """
        return min(1.0, (2 * min(self.gained, self.lost) + 1) / self.n) if self.n else 1.0


class Gain(Value):
    """How much better the candidate is than another side by one metric, as the verdict needs it."""

    metric: str
    effect: float
    """Mean difference, -1 to 1."""
    p_better: float
    """One-sided: how often a candidate no better gains this much by chance."""
    p_worse: float
    """The same in the other direction."""
    items: int
    """Those that both sides answered and that have gold."""
    worth: float
    """As how many independent items of equal weight they count; turns of one session count as one."""
    churn: float = 1.0
    """As `Pairs.churn`, of outcomes that are right or wrong."""
    spread: float | None = None
    """Standard deviation of the differences of graded outcomes; None: right or wrong."""
    other: float = 0.0
    """The other side's mean, 0 to 1."""

    def smallest_effect(self, level: float) -> float:
        """Smallest difference that so many items show with power 0.8, at p <= `level`."""
        if self.spread is None:
            return smallest_effect(round(self.worth), self.churn, level)
        return _normal_effect(self.worth, self.spread, level)

    def items_lacking(self, effect: float, level: float) -> int:
        """About how many items more, worth as much as these, show `effect` with power 0.8."""
        if self.spread is None:
            needed: float = items_needed(effect, self.churn, level)
        else:
            needed = (self.spread * _deviations(level) / effect) ** 2
        return max(1, ceil((needed - self.worth) * (self.items / self.worth if self.worth else 1.0)))


def gain_of(counts: Pairs, *, metric: str = "accuracy", other: float = 0.0) -> Gain:
    """The gain of right and wrong answers to items that have nothing to do with each other."""
    return Gain.model_construct(
        metric=metric,
        effect=(counts.gained - counts.lost) / counts.n if counts.n else 0.0,
        p_better=mcnemar(counts.gained, counts.lost),
        p_worse=mcnemar(counts.lost, counts.gained),
        items=counts.n,
        worth=counts.n,
        churn=counts.churn,
        spread=None,
        other=other,
    )


@lru_cache(maxsize=1 << 16)
def mcnemar(gained: int, lost: int) -> float:
    """Exact one-sided p-value of `gained` against `lost` items: the binomial tail."""
    return float(scipy.stats.binom.sf(gained - 1, gained + lost, 0.5)) if gained + lost else 1.0


def sign_flip(changes: Iterable[int]) -> float:
    """Exact one-sided p-value of a sum: how often it comes out as large when each change could as well have
    the other sign.

    `changes` has one number a session. Where all are equal in size, this is `mcnemar`.
    """
    moved = [change for change in changes if change]
    unit = reduce(gcd, moved, 0)
    sizes = [abs(change) // unit for change in moved]
    gained = sum(change // unit for change in moved if change > 0)
    if set(sizes) <= {1}:
        return mcnemar(gained, len(sizes) - gained)
    # How often the sizes that happen to be positive add up to each number.
    chances = np.zeros(sum(sizes) + 1)
    chances[0] = 1.0
    reached = 0
    for size in sizes:
        chances[size : reached + size + 1] += chances[: reached + 1].copy()
        chances[: reached + size + 1] /= 2
        reached += size
    return min(1.0, float(chances[gained:].sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for there being several, in their order (Holm 1979)."""
    adjusted, greatest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        greatest = max(greatest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = greatest
    return adjusted


def compare(
    candidate: Sequence[float],
    other: Sequence[float],
    *,
    against: str,
    sessions: Sequence[Hashable],
    level: float,
    metric: str = "accuracy",
    weights: Sequence[float] | None = None,
    seed: int = 0,
) -> Comparison:
    """The whole comparison of the candidate with the side named `against`, by one metric.

    Outcomes are right (1) or wrong (0), or graded in between. `sessions` says which items belong
    together, one key an item; `weights` what each counts for, 1 on average; at p <= `level` an effect shows.
    Raises UnpairedOutcomes.
    """
    gain = gained(candidate, other, metric=metric, sessions=sessions, weights=weights)
    return Comparison(
        against=against,
        metric=metric,
        n=len(candidate),
        effective_n=gain.worth,
        gained=sum(c > o for c, o in zip(candidate, other, strict=True)),
        lost=sum(c < o for c, o in zip(candidate, other, strict=True)),
        effect=gain.effect,
        means=(gain.other + gain.effect, gain.other),
        p_value=gain.p_better,
        p_worse=gain.p_worse,
        interval=interval(candidate, other, sessions, weights=weights, seed=seed),
        smallest_effect=gain.smallest_effect(level),
        level=level,
    )


def gained(
    candidate: Sequence[float],
    other: Sequence[float],
    *,
    metric: str = "accuracy",
    sessions: Sequence[Hashable],
    weights: Sequence[float] | None = None,
) -> Gain:
    """What the verdict needs of a comparison. Raises UnpairedOutcomes."""
    _require_pairs(candidate, other)
    _require_pairs(candidate, sessions)
    weight = np.ones(len(candidate)) if weights is None else np.asarray(weights, dtype=float)
    if not len(candidate):
        return gain_of(Pairs(n=0, gained=0, lost=0), metric=metric)
    new, old = np.asarray(candidate, dtype=float), np.asarray(other, dtype=float)
    changes, sizes = _by_session((new - old) * weight, weight, sessions)
    # A whole number of steps, so that differences of 1 stay equal.
    unit = max(1, int(STEPS / max(np.abs(changes).sum(), 1e-9)))
    steps = [round(unit * change) for change in changes]
    binary = bool(np.isin(np.concatenate([new, old]), (0.0, 1.0)).all())
    moved = [c - o for c, o in zip(candidate, other, strict=True)]
    counts = Pairs(n=len(moved), gained=sum(m > 0 for m in moved), lost=sum(m < 0 for m in moved))
    return Gain(
        metric=metric,
        effect=float(changes.sum() / sizes.sum()),
        p_better=sign_flip(steps),
        p_worse=sign_flip(-step for step in steps),
        items=len(moved),
        worth=worth_of(weight, sessions),
        churn=counts.churn,
        spread=None if binary else _spread(new - old),
        other=float((old * weight).sum() / weight.sum()),
    )


def _spread(differences: np.ndarray) -> float:
    """Their standard deviation, with one difference of 1 more, so that it is never 0, as `Pairs.churn`."""
    return sqrt((((differences - differences.mean()) ** 2).sum() + 1) / len(differences))


def worth_of(weights: Sequence[float] | np.ndarray, sessions: Sequence[Hashable]) -> float:
    """As how many independent items of equal weight they count, turns of one session as one.

    Kish's effective sample size (1965) of the sessions' weights: a low bound, as if all turns of a session
    said the same.
    """
    _, sizes = _by_session(np.zeros(len(weights)), np.asarray(weights, dtype=float), sessions)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def interval(
    candidate: Sequence[float],
    other: Sequence[float],
    sessions: Sequence[Hashable],
    *,
    weights: Sequence[float] | None = None,
    seed: int = 0,
) -> tuple[float, float]:
    """95% percentile bootstrap interval of the mean difference, resampling whole sessions.

    Turns of one session are not independent. With fewer than two sessions nothing can be
    resampled, and the interval is (-1, 1).
    """
    if len(set(sessions)) < 2:
        return -1.0, 1.0
    weight = np.ones(len(candidate)) if weights is None else np.asarray(weights, dtype=float)
    moved = (np.asarray(candidate, dtype=float) - np.asarray(other, dtype=float)) * weight
    found = scipy.stats.bootstrap(
        _by_session(moved, weight, sessions),
        lambda change, size, axis: change.sum(axis=axis) / size.sum(axis=axis),
        paired=True,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def least_difference(n: float, gained: float, lost: float, alpha: float) -> float:
    """Lower end of the one-sided interval at level `alpha` of the difference of two paired shares.

    The score interval of Tango (1998), which holds its level for few items and shares near 1, where the
    usual interval of n = 80 without a difference would be a point.
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
    # Just below the measured difference: without a single change that itself is a root.
    return float(scipy.optimize.brentq(too_low, -1.0, (gained - lost) / n - 1e-9))


@lru_cache(maxsize=4096)
def smallest_effect(n: int, churn: float, alpha: float) -> float:
    """Smallest change in accuracy that `n` items show with power 0.8.

    `churn` is the share of items that change in both directions beside the effect. 1.0 where
    `n` items can show nothing.
    """
    if n == 0 or power(n, 1.0, 0.0, alpha) < POWER:
        return 1.0
    low, high = 0.0, 1.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        if power(n, middle, churn, alpha) < POWER:
            low = middle
        else:
            high = middle
    return high


@lru_cache(maxsize=4096)
def items_needed(effect: float, churn: float, alpha: float, most: int = 20_000) -> int:
    """About how many items show `effect` with power 0.8; at most `most`."""
    low, high = 0, most
    while high - low > max(1, low // 50):
        middle = (low + high) // 2
        if power(middle, effect, churn, alpha) < POWER:
            low = middle
        else:
            high = middle
    return high


def power(n: int, effect: float, churn: float, alpha: float) -> float:
    """How often the exact test of `n` items finds `effect`, averaged over the number that differ."""
    differing = np.arange(n + 1)
    discordance = min(1.0, churn + effect)
    # isf gives the least k with P(K > k) <= alpha, so k + 1 gained items are significant.
    needed = scipy.stats.binom.isf(alpha, differing, 0.5) + 1
    found = scipy.stats.binom.sf(needed - 1, differing, (discordance + effect) / (2 * discordance))
    return float((scipy.stats.binom.pmf(differing, n, discordance) * found).sum())


def _normal_effect(n: float, spread: float, alpha: float) -> float:
    """Smallest mean difference that `n` graded items show with power 0.8, by the normal approximation."""
    return min(1.0, _deviations(alpha) * spread / sqrt(n)) if n else 1.0


def _deviations(alpha: float) -> float:
    """Standard errors between no effect and one that is found with power 0.8."""
    return float(scipy.stats.norm.isf(alpha) + scipy.stats.norm.ppf(POWER))


def _by_session(
    moved: np.ndarray, weights: np.ndarray, sessions: Sequence[Hashable]
) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the differences and of the weights of each session, shape (sessions,)."""
    sums: defaultdict[Hashable, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for change, weight, session in zip(moved.tolist(), weights.tolist(), sessions, strict=True):
        sums[session][0] += change
        sums[session][1] += weight
    found = np.array(list(sums.values())).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _require_pairs(one: Sequence[object], other: Sequence[object]) -> None:
    if len(one) != len(other):
        raise UnpairedOutcomes(f"one side has {len(one)} outcomes, the other has {len(other)}")
