"""Error rates of a rule, such as the share of its promotions that are no better than what they replace.

This needs no simulation: a candidate's counts of gained and lost items are multinomial, so `decide` judges
each pair of counts, which is weighted by its probability.
"""

from functools import lru_cache
from math import ceil

import numpy as np
import scipy

from evaluation.report import Verdict
from evaluation.rules import Gate, Look
from evaluation.verdict.decide import Evidence, decide
from evaluation.verdict.paired_tests import PairedCounts, compute_gain_of_counts
from extractors.values import Value

NEGLIGIBLE = 1e-7
"""Pairs of counts that are less probable than this are left out."""


class CandidateMix(Value):
    """A mix of candidates as a team trains them; the defaults are a hard case, in which few are better."""

    worse: float = 0.2
    """Share of candidates that are worse, by `loss`; those that are neither worse nor better are equal."""
    better: float = 0.1
    """Share of candidates that are better, by `gain`."""
    loss: float = 0.05
    gain: float = 0.10
    discordance: float = 0.30
    """Share of items on which the candidate and what is live differ."""


MIX = CandidateMix()
MOST_ITEMS = 300
"""With more items a rule is rarely wrong, and the exact figures take long to compute."""


class RuleQuality(Value):
    """The error rates of a rule in the long run."""

    false_share: float
    """Share of the promoted candidates that are not better."""
    power: float
    """Share of the better candidates that are promoted."""
    worse_promoted: float
    """Candidates that are promoted of 100 that are worse."""


@lru_cache(maxsize=64)
def measure_rule(gate: Gate, n: int, fresh: int, mix: CandidateMix) -> RuleQuality:
    """Return the error rates of `gate` for candidates of `mix`.

    There are `n` held-out items, and `fresh` newer ones for a second look.
    """
    effects = {"worse": -mix.loss, "equal": 0.0, "better": mix.gain}
    promoted = {
        kind: _compute_promotion_rate(gate, n, fresh, effect, mix.discordance)
        for kind, effect in effects.items()
    }
    shares = {"worse": mix.worse, "equal": 1 - mix.worse - mix.better, "better": mix.better}
    promotions = {kind: shares[kind] * promoted[kind] for kind in effects}
    return RuleQuality(
        false_share=1 - promotions["better"] / sum(promotions.values()) if sum(promotions.values()) else 0.0,
        power=promoted["better"],
        worse_promoted=100 * promoted["worse"],
    )


def describe_error_rates(gate: Gate, n: int) -> str:
    """Return how often the rule errs with `n` held-out items, in words. May take seconds."""
    n, more = min(n, MOST_ITEMS), " or more" if n > MOST_ITEMS else ""
    found = measure_rule(gate, n, ceil(gate.fresh_items * n), MIX)
    return (
        f"{gate.rule.replace('-', ' ')}: with {n}{more} held-out items about {100 * found.false_share:.0f} "
        f"of 100 promotions are no better than what they replace, and {100 * found.power:.0f} of 100 better "
        f"candidates are promoted (where {MIX.better:.0%} are better by {MIX.gain:g}, {MIX.worse:.0%} worse "
        f"by {MIX.loss:g})"
    )


def _compute_promotion_rate(gate: Gate, n: int, fresh: int, effect: float, discordance: float) -> float:
    """Return the probability that a candidate of this effect goes live, at once or after probation."""
    first = _compute_verdict_rates(gate, n, "first", effect, discordance)
    if not first.get("PROBATION"):
        return first.get("PROMOTE", 0.0)
    second = _compute_verdict_rates(gate, fresh, "second", effect, discordance)
    return first.get("PROMOTE", 0.0) + first["PROBATION"] * second.get("PROMOTE", 0.0)


@lru_cache(maxsize=256)
def _compute_verdict_rates(
    gate: Gate, n: int, look: Look, effect: float, discordance: float
) -> dict[Verdict, float]:
    """Return the probability of each verdict."""
    differing = np.arange(n + 1)
    chances = scipy.stats.binom.pmf(differing, n, discordance)
    found: dict[Verdict, float] = {}
    for count in differing[chances > NEGLIGIBLE].tolist():
        gained = np.arange(count + 1)
        share = chances[count] * scipy.stats.binom.pmf(
            gained, count, (discordance + effect) / (2 * discordance)
        )
        for got in gained[share > NEGLIGIBLE].tolist():
            gains = (compute_gain_of_counts(PairedCounts(n=n, gained=got, lost=count - got)),)
            verdict = decide(Evidence.model_construct(gains=gains), gate, look).verdict
            found[verdict] = found.get(verdict, 0.0) + float(share[got])
    return found
