"""What the comparison means for the candidate: promote it, try it on newer traffic, reject it, or say what
is missing to tell.

`decide` is a function of a few numbers and thresholds, cheap enough to be simulated; `explain` puts its
decision into words. The default rule has two looks, since a daemon tests for years, and one test in twenty
is passed by candidates that are no better:

    first look    PROMOTE where p is very small;  PROBATION where it is promising;  else the end
    second look   on reviewed traffic that came after the candidate's training: PROMOTE, or the end
"""

from collections.abc import Callable, Mapping

from evaluation.report import Condition, Guard, Verdict
from evaluation.rules import Gate, Look
from evaluation.verdict.paired_tests import Gain, holm
from extractors.values import Value


class Evidence(Value):
    """What an evaluation found, as far as it decides."""

    gains: tuple[Gain, ...]
    """Over what is live, by each gating metric. The first one, the primary, has to get better; none may get
    worse."""
    retention: Gain | None = None
    """Over what is live, on older traffic that neither was trained on."""
    guards: tuple[Guard, ...] = ()
    over_waiting: float | None = None
    """Gain in the primary metric over the version on probation; None where there is none."""
    unfair: str = ""
    """Why the holdout cannot judge anybody, in words; empty where it can."""


class Decision(Value):
    """The verdict, and what led to it."""

    verdict: Verdict
    condition: Condition


def decide(evidence: Evidence, gate: Gate, look: Look = "first") -> Decision:
    """Judge a candidate.

    A holdout that cannot judge fairly comes first, then whatever got worse. A candidate that passes is
    promoted however small the holdout was, since p-value and effect say that it sufficed.
    """
    if evidence.unfair:
        return _decision("INCONCLUSIVE", "unfair holdout")
    if worse := _worse(evidence, gate):
        return _decision("REJECT", worse)
    open_guards = any(guard.state == "open" for guard in evidence.guards)
    if best := _passes(evidence, gate.passing(look), gate.min_effect):
        if not open_guards:
            return _decision("PROMOTE", "better")
        if gate.rule == "one-look" or look == "second":
            return _decision("INCONCLUSIVE", "open guard")
    if gate.rule == "two-looks" and look == "first" and (best or _passes(evidence, gate.promising, 0.0)):
        if evidence.over_waiting is not None and evidence.over_waiting <= 0:
            return _decision("REJECT", "another is on probation")
        return _decision("PROBATION", "open guard" if best else "promising")
    if evidence.gains[0].other >= 1:
        return _decision("INCONCLUSIVE", "nothing to improve")
    if _out_of_reach(evidence, gate, look):
        return _decision("INCONCLUSIVE", "too few items")
    return _decision("REJECT", "not better")


def _decision(verdict: Verdict, condition: Condition) -> Decision:
    return Decision.model_construct(verdict=verdict, condition=condition)


def _worse(evidence: Evidence, gate: Gate) -> Condition | None:
    """What got worse, if anything did. Of several tests for that, each has to be the more certain."""
    retained = [evidence.retention] if evidence.retention else []
    *gains, kept = holm([gain.p_worse for gain in (*evidence.gains, *retained)]) + [1.0] * (not retained)
    if any(p < gate.alpha for p in gains):
        return "regression"
    if kept < gate.alpha:
        return "forgetting"
    return "broken guard" if any(guard.state == "broken" for guard in evidence.guards) else None


def _passes(evidence: Evidence, level: float, least: float) -> bool:
    """Whether the candidate is better by the primary metric, as one of several that are tested."""
    adjusted = holm([gain.p_better for gain in evidence.gains])
    return adjusted[0] <= level and evidence.gains[0].effect >= least


def _out_of_reach(evidence: Evidence, gate: Gate, look: Look) -> bool:
    """Whether so few items could hardly have shown the effect that is wanted."""
    level = gate.reach(look, len(evidence.gains))
    return evidence.gains[0].smallest_effect(level) > gate.min_effect > 0


def explain(decision: Decision, evidence: Evidence, gate: Gate, look: Look = "first") -> str:
    """The condition that decided, in words, with its numbers."""
    return EXPLANATIONS[decision.condition](evidence, gate, look)


def _in_words(gain: Gain) -> str:
    return f"{gain.metric} {gain.effect:+.3f}, p = {gain.p_better:.2g}"


def _measured(evidence: Evidence, *_: object) -> str:
    return f"{'; '.join(map(_in_words, evidence.gains))} on {_items(evidence.gains[0])}"


def _items(gain: Gain, kind: str = "items") -> str:
    """How many there are, and as how many independent ones they count where that is fewer."""
    worth = round(gain.worth)
    return f"{gain.items} {kind}" + (f" (worth {worth} independent ones)" if worth < gain.items else "")


def _better(evidence: Evidence, _gate: Gate, look: Look) -> str:
    newer = "on newer traffic, too" if look == "second" else "than what is live"
    return f"better {newer}: {_measured(evidence)}"


def _regression(evidence: Evidence, *_: object) -> str:
    worst = min(evidence.gains, key=lambda gain: gain.p_worse)
    return f"a regression: {_measured(evidence)}; p for worse {worst.metric} = {worst.p_worse:.2g}"


def _forgetting(evidence: Evidence, *_: object) -> str:
    kept = evidence.retention
    assert kept is not None  # noqa: S101  # the condition rests on it
    return (
        f"it forgets: {kept.metric} {kept.effect:+.3f} on {_items(kept, 'older items')} that were reserved, "
        f"p for worse = {kept.p_worse:.2g}; on newer traffic {_measured(evidence)}"
    )


def _guards(state: str, evidence: Evidence) -> str:
    return "; ".join(guard.words for guard in evidence.guards if guard.state == state)


def _broken_guard(evidence: Evidence, *_: object) -> str:
    return f"{_guards('broken', evidence)}; otherwise {_measured(evidence)}"


def _open_guard(evidence: Evidence, gate: Gate, look: Look) -> str:
    then = f"; {SECOND_LOOK}" if gate.rule == "two-looks" and look == "first" else "; review more traffic"
    return f"better ({_measured(evidence)}), but {_guards('open', evidence)}{then}"


SECOND_LOOK = "it is judged again on traffic that comes after its training"


def _promising(evidence: Evidence, gate: Gate, _look: Look) -> str:
    at_once = f"live at once takes p <= {gate.at_once:g} and an effect of at least {gate.min_effect:g}"
    return f"promising: {_measured(evidence)}; {at_once}; {SECOND_LOOK}"


def _another(evidence: Evidence, *_: object) -> str:
    return (
        f"promising ({_measured(evidence)}), but no better than the version on probation "
        f"({evidence.over_waiting:+.3f}), which is closer to its second look"
    )


def _too_few(evidence: Evidence, gate: Gate, look: Look) -> str:
    primary, level = evidence.gains[0], gate.reach(look, len(evidence.gains))
    more = primary.items_lacking(gate.min_effect, level)
    return (
        f"{_items(primary, 'held-out items')} are too few to show an effect of {gate.min_effect:g}: it needs "
        f"about {more} more, so review more traffic; measured {_measured(evidence)}"
    )


def _nothing_to_improve(evidence: Evidence, *_: object) -> str:
    return (
        f"what is live answers all {evidence.gains[0].items} held-out items right, so nothing could be "
        f"improved; review more traffic, the mistakes above all; measured {_measured(evidence)}"
    )


def _not_better(evidence: Evidence, gate: Gate, look: Look) -> str:
    needed = f"it takes p <= {gate.telling(look):g} and an effect of at least {gate.min_effect:g}"
    return f"not better than what is live: {_measured(evidence)}; {needed}"


EXPLANATIONS: Mapping[Condition, Callable[[Evidence, Gate, Look], str]] = {
    "unfair holdout": lambda evidence, *_: evidence.unfair,
    "regression": _regression,
    "forgetting": _forgetting,
    "broken guard": _broken_guard,
    "better": _better,
    "open guard": _open_guard,
    "promising": _promising,
    "another is on probation": _another,
    "nothing to improve": _nothing_to_improve,
    "too few items": _too_few,
    "not better": _not_better,
}
