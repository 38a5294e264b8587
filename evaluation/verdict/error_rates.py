"""How often a rule is wrong: what of all that it promotes is no better than what it replaces.

No simulation: a candidate's counts of gained and lost items are multinomial, so each pair of counts is
judged by `decide` and weighed with its chance.
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
"""Chance of a pair of counts that is left out."""


class CandidateMix(Value):
    """What a team's candidates are like; the defaults are a hard case, in which few are better."""

    worse: float = 0.2
    """Share of candidates that are worse, by `loss`; what is neither worse nor better is equal."""
    better: float = 0.1
    loss: float = 0.05
    gain: float = 0.10
    discordance: float = 0.30
    """Share of items on which candidate and live differ."""


MIX = CandidateMix()
MOST_ITEMS = 300
"""Beyond, a rule is rarely wrong, and working out how rarely takes long."""


class RuleQuality(Value):
    """What a rule does in the long run."""

    false_share: float
    """Of all that is promoted, the share that is not better."""
    power: float
    """Of all candidates that are better, the share that is promoted."""
    worse_promoted: float
    """Of 100 candidates that are worse, how many are promoted."""


@lru_cache(maxsize=64)
def measure_rule(gate: Gate, n: int, fresh: int, mix: CandidateMix) -> RuleQuality:
    """What becomes of the candidates of `mix` by `gate`, with `n` held-out items and `fresh` newer ones for a
    second look.
    """
    effects = {"worse": -mix.loss, "equal": 0.0, "better": mix.gain}
    promoted = {
        kind: _compute_promotion_rate(gate, n, fresh, effect, mix.discordance)
        for kind, effect in effects.items()
    }
    shares = {"worse": mix.worse, "equal": 1 - mix.worse - mix.better, "better": mix.better}
    every = {kind: shares[kind] * promoted[kind] for kind in effects}
    return RuleQuality(
        false_share=1 - every["better"] / sum(every.values()) if sum(every.values()) else 0.0,
        power=promoted["better"],
        worse_promoted=100 * promoted["worse"],
    )


def describe_error_rates(gate: Gate, n: int) -> str:
    """How often the rule errs with `n` held-out items, for people. May take seconds."""
    n, more = min(n, MOST_ITEMS), " or more" if n > MOST_ITEMS else ""
    found = measure_rule(gate, n, ceil(gate.fresh_items * n), MIX)
    return (
        f"{gate.rule.replace('-', ' ')}: with {n}{more} held-out items about {100 * found.false_share:.0f} "
        f"of 100 promotions are no better than what they replace, and {100 * found.power:.0f} of 100 better "
        f"candidates are promoted (where {MIX.better:.0%} are better by {MIX.gain:g}, {MIX.worse:.0%} worse "
        f"by {MIX.loss:g})"
    )


def _compute_promotion_rate(gate: Gate, n: int, fresh: int, effect: float, discordance: float) -> float:
    """How often a candidate of that effect goes live: at once, or by way of probation."""
    first = _compute_verdict_rates(gate, n, "first", effect, discordance)
    if not first.get("PROBATION"):
        return first.get("PROMOTE", 0.0)
    second = _compute_verdict_rates(gate, fresh, "second", effect, discordance)
    return first.get("PROMOTE", 0.0) + first["PROBATION"] * second.get("PROMOTE", 0.0)


@lru_cache(maxsize=256)
def _compute_verdict_rates(
    gate: Gate, n: int, look: Look, effect: float, discordance: float
) -> dict[Verdict, float]:
    """How often each verdict is reached."""
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
