"""The guards on promotion: what no candidate may make worse, whatever it gains.

    golden cases    answered rightly by what is live, wrongly by the candidate
    valid answers   their share, by the score interval of paired shares
    latency         time for the same work, by its interval
    general ability agreement with the base on everyday questions, by its interval, where a margin is set

Each guard is kept, broken, or open where the interval allows both.
"""

from evaluation.metrics.measures import Overhead
from evaluation.report import (
    GoldenResults,
    PromotionGuard,
)
from evaluation.rules import Gate
from evaluation.verdict.findings import Findings
from evaluation.verdict.paired_tests import (
    compute_least_difference,
    count_effective_items,
)
from trainers.planning.method_rules import REPLAY_TASKS, Task

NAMED = 3
"""Golden cases that the reason names at most; the report has all."""


def check_guards(found: Findings, gate: Gate, task: Task) -> list[PromotionGuard]:
    """Return the guards that the findings allow to be checked, each with its state and why."""
    guards = []
    if found.golden:
        guards.append(_check_golden_cases(found.golden, gate, found.live))
    if task != "embedding":
        guards.append(_check_valid_answers(found, gate))
    against = next((each for each in found.overheads if each.against == found.live), None)
    if against:
        guards.append(_check_latency(against, gate))
    if gate.general_margin is not None and task in REPLAY_TASKS:
        guards.append(_check_general_ability(found, gate.general_margin))
    return guards


def _check_golden_cases(golden: GoldenResults, gate: Gate, live: str) -> PromotionGuard:
    broken, refused = golden.broken, sum(case.refused for case in golden.failed)
    if not broken:
        words = f"no golden case of {golden.cases} is broken"
        words += f"; the chat template refuses to ask {refused} of them" if refused else ""
        return PromotionGuard(name="golden cases", state="kept", words=words)
    named = "; ".join(
        f"{_shorten(case.asked)!r} is answered {_shorten(case.candidate)!r}, not {_shorten(case.expected)!r}"
        for case in broken[:NAMED]
    )
    more = f"; and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
    plural = "case" if len(broken) == 1 else "cases"
    words = (
        f"it breaks {len(broken)} golden {plural} of {golden.cases} that {live} passes "
        f"({gate.golden_tolerance} allowed): {named}{more}"
    )
    return PromotionGuard(
        name="golden cases", state="broken" if len(broken) > gate.golden_tolerance else "kept", words=words
    )


def _check_valid_answers(found: Findings, gate: Gate) -> PromotionGuard:
    """Check that the share of valid answers is not inferior, by the score interval of paired shares.

    Where no valid answer was lost there is nothing to doubt, however few answers there are.
    """
    candidate, live = found.sides[-1], found.find_side(found.live)
    pairs = list(zip(candidate.answers, live.answers, strict=True))
    gained = sum(new.valid and not old.valid for new, old in pairs)
    lost = sum(old.valid and not new.valid for new, old in pairs)
    shares = f"valid answers {candidate.valid_rate:.1%} against {live.valid_rate:.1%} of what is live"
    if not lost:
        return PromotionGuard(name="valid answers", state="kept", words=f"{shares}; none was lost")
    worth = count_effective_items([1.0] * len(pairs), [found.sessions[new.item_id] for new, _ in pairs])
    scale = worth / len(pairs)
    least = compute_least_difference(worth, scale * gained, scale * lost, gate.alpha)
    most = -compute_least_difference(worth, scale * lost, scale * gained, gate.alpha)
    words = (
        f"{shares} ({lost} of {len(pairs)} lost; between {least:+.1%} and {most:+.1%}; "
        f"down to {-gate.valid_margin:.0%} is allowed)"
    )
    return PromotionGuard(
        name="valid answers", state=_find_guard_state(least, most, -gate.valid_margin), words=words
    )


def _check_latency(overhead: Overhead, gate: Gate) -> PromotionGuard:
    words = (
        f"it takes {overhead.ratio:.2f} times as long as what is live for the same work (between "
        f"{overhead.lower:.2f} and {overhead.upper:.2f}; up to {1 + gate.latency_margin:.2f} is allowed)"
    )
    state = _find_guard_state(-overhead.upper, -overhead.lower, -(1 + gate.latency_margin))
    return PromotionGuard(name="latency", state=state, words=words)


def _check_general_ability(found: Findings, margin: float) -> PromotionGuard:
    """Check that the candidate answers everyday questions nearly as what is live does."""
    name, general = "general ability", found.general
    if general is None:
        why_not = found.no_general or "it was not measured"
        return PromotionGuard(name=name, state="open", words=f"general ability is not known: {why_not}")
    least, most = general.interval
    words = (
        "its answers to everyday questions agree with the base model's by "
        f"{general.candidate.agreement:.2f}, {general.change:+.2f} against what is live (between "
        f"{least:+.2f} and {most:+.2f}; down to {-margin:.2f} is allowed)"
    )
    return PromotionGuard(name=name, state=_find_guard_state(least, most, -margin), words=words)


def _find_guard_state(least: float, most: float, allowed: float) -> str:
    """Tell from an interval whether the guard holds at the least value that is allowed."""
    if least > allowed:
        return "kept"
    return "broken" if most < allowed else "open"


def _shorten(text: str, length: int = 60) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"
