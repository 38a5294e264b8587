"""The verdict on a candidate: promote it, try it on newer traffic, reject it, or say what is missing to tell.

`decide` is a function of a few numbers and thresholds, cheap enough to be simulated; `explain` puts its
decision into words. The default rule has two looks, because a daemon tests for years, and candidates that
are no better pass one test in twenty:

    first look    PROMOTE where p is very small;  PROBATION where it is promising;  else the end
    second look   on reviewed traffic that came after the candidate's training: PROMOTE, or the end
"""

from collections.abc import Callable, Mapping

from evaluation.report import Condition, PromotionGuard, Verdict
from evaluation.rules import Gate, Look
from evaluation.verdict.paired_tests import Gain, adjust_by_holm
from extractors.values import Value


class Evidence(Value):
    """The findings of an evaluation that decide."""

    gains: tuple[Gain, ...]
    """Gains over what is live, by gating metric. By the first one, the primary, the candidate must be better,
    and by none may it be worse."""
    retention: Gain | None = None
    """Gain over what is live, on older traffic that neither was trained on."""
    guards: tuple[PromotionGuard, ...] = ()
    over_waiting: float | None = None
    """Gain in the primary metric over the version on probation; None where there is none."""
    unfair: str = ""
    """Why the holdout cannot judge any candidate, in words; empty where it can."""


class GateDecision(Value):
    """The verdict, and the condition that led to it."""

    verdict: Verdict
    condition: Condition


def decide(evidence: Evidence, gate: Gate, look: Look = "first") -> GateDecision:
    """Judge a candidate.

    A holdout that cannot judge fairly decides first, then anything that got worse. A candidate that passes
    is promoted however small the holdout is: p-value and effect say that it sufficed.
    """
    if evidence.unfair:
        return _build("INCONCLUSIVE", "unfair holdout")
    if worse := _find_regression(evidence, gate):
        return _build("REJECT", worse)
    open_guards = any(guard.state == "open" for guard in evidence.guards)
    if best := _is_better(evidence, gate.promotion_level(look), gate.min_effect):
        if not open_guards:
            return _build("PROMOTE", "better")
        if gate.rule == "one-look" or look == "second":
            return _build("INCONCLUSIVE", "open guard")
    if gate.rule == "two-looks" and look == "first" and (best or _is_better(evidence, gate.promising, 0.0)):
        if evidence.over_waiting is not None and evidence.over_waiting <= 0:
            return _build("REJECT", "another is on probation")
        return _build("PROBATION", "open guard" if best else "promising")
    if evidence.gains[0].other >= 1:
        return _build("INCONCLUSIVE", "nothing to improve")
    if _is_out_of_reach(evidence, gate, look):
        return _build("INCONCLUSIVE", "too few items")
    return _build("REJECT", "not better")


def _build(verdict: Verdict, condition: Condition) -> GateDecision:
    return GateDecision.model_construct(verdict=verdict, condition=condition)


def _find_regression(evidence: Evidence, gate: Gate) -> Condition | None:
    """Return what got worse, or None. The more tests there are for that, the surer each must be (Holm)."""
    retained = [evidence.retention] if evidence.retention else []
    *gains, kept = adjust_by_holm([gain.p_worse for gain in (*evidence.gains, *retained)]) + [1.0] * (
        not retained
    )
    if any(p < gate.alpha for p in gains):
        return "regression"
    if kept < gate.alpha:
        return "forgetting"
    return "broken guard" if any(guard.state == "broken" for guard in evidence.guards) else None


def _is_better(evidence: Evidence, level: float, least: float) -> bool:
    """Return True if the candidate is better by the primary metric, as one of several that are tested."""
    adjusted = adjust_by_holm([gain.p_better for gain in evidence.gains])
    return adjusted[0] <= level and evidence.gains[0].effect >= least


def _is_out_of_reach(evidence: Evidence, gate: Gate, look: Look) -> bool:
    """Return True if the items are too few to show the least effect that the gate asks for."""
    level = gate.detection_level(look, len(evidence.gains))
    return evidence.gains[0].find_smallest_effect(level) > gate.min_effect > 0


def explain(decision: GateDecision, evidence: Evidence, gate: Gate, look: Look = "first") -> str:
    """Return the condition that decided, in words, with its numbers."""
    return EXPLANATIONS[decision.condition](evidence, gate, look)


def _format_gain(gain: Gain) -> str:
    return f"{gain.metric} {gain.effect:+.3f}, p = {gain.p_better:.2g}"


def _format_gains(evidence: Evidence, *_: object) -> str:
    return f"{'; '.join(map(_format_gain, evidence.gains))} on {_format_items(evidence.gains[0])}"


def _format_items(gain: Gain, kind: str = "items") -> str:
    """Return the number of items and, where it is smaller, the number of independent ones they are worth."""
    worth = round(gain.worth)
    return f"{gain.items} {kind}" + (f" (worth {worth} independent ones)" if worth < gain.items else "")


def _explain_better(evidence: Evidence, _gate: Gate, look: Look) -> str:
    newer = "on newer traffic, too" if look == "second" else "than what is live"
    return f"better {newer}: {_format_gains(evidence)}"


def _explain_regression(evidence: Evidence, *_: object) -> str:
    worst = min(evidence.gains, key=lambda gain: gain.p_worse)
    return f"a regression: {_format_gains(evidence)}; p for worse {worst.metric} = {worst.p_worse:.2g}"


def _explain_forgetting(evidence: Evidence, *_: object) -> str:
    kept = evidence.retention
    assert kept is not None  # noqa: S101  # the condition rests on it
    return (
        f"it forgets: {kept.metric} {kept.effect:+.3f} on {_format_items(kept, 'older items')} that were "
        f"reserved, p for worse = {kept.p_worse:.2g}; on newer traffic {_format_gains(evidence)}"
    )


def _format_guards(state: str, evidence: Evidence) -> str:
    return "; ".join(guard.words for guard in evidence.guards if guard.state == state)


def _explain_broken_guard(evidence: Evidence, *_: object) -> str:
    return f"{_format_guards('broken', evidence)}; otherwise {_format_gains(evidence)}"


def _explain_open_guard(evidence: Evidence, gate: Gate, look: Look) -> str:
    then = f"; {SECOND_LOOK}" if gate.rule == "two-looks" and look == "first" else "; review more traffic"
    return f"better ({_format_gains(evidence)}), but {_format_guards('open', evidence)}{then}"


SECOND_LOOK = "it is judged again on traffic that comes after its training"


def _explain_promising(evidence: Evidence, gate: Gate, _look: Look) -> str:
    at_once = f"live at once takes p <= {gate.at_once:g} and an effect of at least {gate.min_effect:g}"
    return f"promising: {_format_gains(evidence)}; {at_once}; {SECOND_LOOK}"


def _explain_another_waiting(evidence: Evidence, *_: object) -> str:
    return (
        f"promising ({_format_gains(evidence)}), but no better than the version on probation "
        f"({evidence.over_waiting:+.3f}), which is closer to its second look"
    )


def _explain_too_few(evidence: Evidence, gate: Gate, look: Look) -> str:
    primary, level = evidence.gains[0], gate.detection_level(look, len(evidence.gains))
    more = primary.count_lacking_items(gate.min_effect, level)
    return (
        f"{_format_items(primary, 'held-out items')} are too few to show an effect of {gate.min_effect:g}: "
        f"it needs about {more} more, so review more traffic; measured {_format_gains(evidence)}"
    )


def _explain_nothing_to_improve(evidence: Evidence, *_: object) -> str:
    return (
        f"what is live answers all {evidence.gains[0].items} held-out items right, so nothing could be "
        f"improved; review more traffic, the mistakes above all; measured {_format_gains(evidence)}"
    )


def _explain_not_better(evidence: Evidence, gate: Gate, look: Look) -> str:
    needed = f"it takes p <= {gate.promising_level(look):g} and an effect of at least {gate.min_effect:g}"
    return f"not better than what is live: {_format_gains(evidence)}; {needed}"


EXPLANATIONS: Mapping[Condition, Callable[[Evidence, Gate, Look], str]] = {
    "unfair holdout": lambda evidence, *_: evidence.unfair,
    "regression": _explain_regression,
    "forgetting": _explain_forgetting,
    "broken guard": _explain_broken_guard,
    "better": _explain_better,
    "open guard": _explain_open_guard,
    "promising": _explain_promising,
    "another is on probation": _explain_another_waiting,
    "nothing to improve": _explain_nothing_to_improve,
    "too few items": _explain_too_few,
    "not better": _explain_not_better,
}
