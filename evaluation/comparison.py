"""Is the candidate better than another side? Paired comparison of right and wrong answers.

Both sides answered the same items, so only the items on which they differ say anything
(McNemar 1947). Pure functions: outcomes in, numbers out. The interval stands apart, because
its resampling would slow down whoever simulates decisions.
"""

from collections.abc import Hashable, Sequence
from functools import lru_cache

import numpy as np
from scipy.stats import binom, binomtest, bootstrap

from evaluation.report import Comparison
from extractors.values import LearndError, Value

POWER = 0.8
"""How often a smallest effect must be found."""
RESAMPLES = 2000


class UnpairedOutcomes(LearndError):
    """The two sides did not answer the same items; score both on one holdout."""


class Pairs(Value):
    """How the outcomes of two sides on the same items differ."""

    n: int
    """Items that both sides answered and that have gold."""
    gained: int
    """Items that only the candidate got right."""
    lost: int
    """Items that only the other side got right."""

    @property
    def effect(self) -> float:
        """Change in accuracy, -1 to 1; 0 without items."""
        return (self.gained - self.lost) / self.n if self.n else 0.0

    @property
    def p_value(self) -> float:
        """One-sided: how often a candidate no better gains this much by chance."""
        return mcnemar(self.gained, self.lost)

    @property
    def p_worse(self) -> float:
        """The same in the other direction."""
        return mcnemar(self.lost, self.gained)

    @property
    def churn(self) -> float:
        """Share of the items that changed without changing the accuracy, as many gained as lost.

        One more is assumed, so it is never 0.
        """
        return min(1.0, (2 * min(self.gained, self.lost) + 1) / self.n) if self.n else 1.0


def pairs(candidate: Sequence[bool], other: Sequence[bool]) -> Pairs:
    """One outcome an item each, in the same order. Raises UnpairedOutcomes when the lengths differ."""
    if len(candidate) != len(other):
        raise UnpairedOutcomes(f"candidate has {len(candidate)} outcomes, the other side has {len(other)}")
    gained = sum(c and not o for c, o in zip(candidate, other, strict=True))
    lost = sum(o and not c for c, o in zip(candidate, other, strict=True))
    return Pairs(n=len(candidate), gained=gained, lost=lost)


def mcnemar(gained: int, lost: int) -> float:
    """Exact one-sided p-value of `gained` against `lost`."""
    # With no differing item there is no evidence either way, and binomtest refuses n = 0.
    return (
        float(binomtest(gained, gained + lost, 0.5, alternative="greater").pvalue) if gained + lost else 1.0
    )


def compare(
    candidate: Sequence[bool],
    other: Sequence[bool],
    *,
    against: str,
    sessions: Sequence[Hashable],
    alpha: float,
    seed: int = 0,
) -> Comparison:
    """The whole comparison of the candidate with the side named `against`.

    `sessions` says which items belong together, one key an item; `alpha` is the test's level.
    Raises UnpairedOutcomes.
    """
    counts = pairs(candidate, other)
    return Comparison(
        against=against,
        n=counts.n,
        gained=counts.gained,
        lost=counts.lost,
        p_value=counts.p_value,
        p_worse=counts.p_worse,
        interval=interval(candidate, other, sessions, seed=seed),
        smallest_effect=smallest_effect(counts.n, counts.churn, alpha),
    )


def interval(
    candidate: Sequence[bool], other: Sequence[bool], sessions: Sequence[Hashable], *, seed: int = 0
) -> tuple[float, float]:
    """95% percentile bootstrap interval of the change in accuracy, resampling whole sessions.

    Turns of one session are not independent. With fewer than two sessions nothing can be
    resampled, and the interval is (-1, 1).
    """
    if len(set(sessions)) < 2:
        return -1.0, 1.0
    number = {session: index for index, session in enumerate(dict.fromkeys(sessions))}
    changes, sizes = np.zeros(len(number)), np.zeros(len(number))
    for c, o, session in zip(candidate, other, sessions, strict=True):
        changes[number[session]] += int(c) - int(o)
        sizes[number[session]] += 1
    found = bootstrap(
        (changes, sizes),
        lambda change, size, axis: change.sum(axis=axis) / size.sum(axis=axis),
        paired=True,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


@lru_cache(maxsize=4096)
def smallest_effect(n: int, churn: float, alpha: float) -> float:
    """Smallest change in accuracy that `n` items show with power 0.8.

    `churn` is the share of items that change in both directions beside the effect. 1.0 where
    `n` items can show nothing.
    """
    if n == 0 or _power(n, 1.0, 0.0, alpha) < POWER:
        return 1.0
    low, high = 0.0, 1.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        if _power(n, middle, churn, alpha) < POWER:
            low = middle
        else:
            high = middle
    return high


def items_needed(effect: float, churn: float, alpha: float, most: int = 20_000) -> int:
    """About how many items show `effect` with power 0.8; at most `most`."""
    low, high = 0, most
    while high - low > max(1, low // 50):
        middle = (low + high) // 2
        if _power(middle, effect, churn, alpha) < POWER:
            low = middle
        else:
            high = middle
    return high


def _power(n: int, effect: float, churn: float, alpha: float) -> float:
    """How often the exact test of `n` items finds `effect`, averaged over the number that differ."""
    differing = np.arange(n + 1)
    discordance = min(1.0, churn + effect)
    # isf gives the least k with P(K > k) <= alpha, so k + 1 gained items are significant.
    needed = binom.isf(alpha, differing, 0.5) + 1
    found = binom.sf(needed - 1, differing, (discordance + effect) / (2 * discordance))
    return float((binom.pmf(differing, n, discordance) * found).sum())
