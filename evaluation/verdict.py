"""What the comparison means for the candidate: promote it, reject it, or say what is missing to tell."""

from evaluation.comparison import Pairs, items_needed, smallest_effect
from evaluation.report import Verdict
from extractors.values import Value


class Gate(Value):
    """What a candidate must show."""

    alpha: float
    """Greatest p-value that counts as better."""
    min_effect: float
    """Least measured change in accuracy."""


class Evidence(Value):
    """What the holdout says about the candidate and what is live."""

    pairs: Pairs
    """Candidate against live, over the items with gold."""
    live_right: int
    """Items with gold that what is live answers right."""
    corrected: int
    """Held-out items whose answer was rejected and corrected."""
    rejected_without_correction: int
    """Held-out items whose answer was rejected and not corrected: they have no gold."""


class Decision(Value):
    """The verdict, and the condition that led to it in words, with its numbers."""

    verdict: Verdict
    reason: str
    regression: bool = False
    """The candidate is significantly worse than what is live."""


def decide(evidence: Evidence, gate: Gate) -> Decision:
    """Judge a candidate by `evidence`.

    A holdout that cannot judge fairly comes first: where most rejections lack a correction, what
    is live looks right nearly everywhere, and every candidate worse than it is. A candidate that
    passes is promoted however small the holdout was, since p-value and effect say that it sufficed.
    """
    pairs = evidence.pairs
    counts = f"gained {pairs.gained}, lost {pairs.lost}, p = {pairs.p_value:.3g}"
    measured = f"{pairs.effect:+.3f} on {pairs.n} items ({counts})"
    if unfair := _unfair(evidence):
        return Decision(verdict="INCONCLUSIVE", reason=unfair)
    if pairs.p_value < gate.alpha and pairs.effect >= gate.min_effect:
        return Decision(verdict="PROMOTE", reason=f"better than what is live: {measured}")
    if pairs.p_worse < gate.alpha:
        return Decision(
            verdict="REJECT",
            reason=f"a regression: {measured}, p for worse = {pairs.p_worse:.3g}",
            regression=True,
        )
    if missing := _missing(evidence, gate):
        return Decision(verdict="INCONCLUSIVE", reason=f"{missing}; measured {measured}")
    return Decision(
        verdict="REJECT",
        reason=f"not better than what is live: {measured}; it takes p < {gate.alpha:g} "
        f"and an effect of at least {gate.min_effect:g}",
    )


def _unfair(evidence: Evidence) -> str:
    """Why the holdout cannot judge anybody fairly, in words; empty if it can."""
    rejected = evidence.corrected + evidence.rejected_without_correction
    if not evidence.pairs.n:
        return "no held-out item has gold; approve answers or correct them"
    if 2 * evidence.rejected_without_correction > rejected:
        return (
            f"{evidence.rejected_without_correction} of {rejected} rejected held-out answers have no "
            "correction, so the holdout does not show what is live doing wrong; ask reviewers for corrections"
        )
    return ""


def _missing(evidence: Evidence, gate: Gate) -> str:
    """Why a candidate that did not pass might still be better, in words; empty if it hardly can."""
    pairs = evidence.pairs
    if evidence.live_right == pairs.n:
        return (
            f"what is live answers all {pairs.n} held-out items right, so nothing could be improved; "
            "review more traffic, the mistakes above all"
        )
    if smallest_effect(pairs.n, pairs.churn, gate.alpha) > gate.min_effect > 0:
        needed = items_needed(gate.min_effect, pairs.churn, gate.alpha)
        return (
            f"{pairs.n} held-out items are too few to show an effect of {gate.min_effect:g}, "
            f"it takes about {needed}; review more traffic"
        )
    return ""
