"""From the sides of an evaluation to its report: comparisons, guards, and the verdict on them. Pure."""

from collections.abc import Iterator, Sequence

from evaluation.metrics.latency import Overhead
from evaluation.metrics.llm_judge import Preferences
from evaluation.report import Answer, Comparison, Golden, Guard, Report, SeedRuns, Served, Side
from evaluation.rules import JUDGE, Gate, Look
from evaluation.verdict.decide import Evidence, decide, explain
from evaluation.verdict.paired_tests import Gain, compare, gained, least_difference, worth_of
from evaluation.weighting.weights import Weighting
from extractors.dataset.holdout_split import group
from extractors.examples.types import ReviewedItem
from extractors.values import Value
from trainers.planning.method_rules import Task

NAMED = 3
"""Golden cases that the reason names; the report has all."""


class Findings(Value):
    """What an evaluation measured, before anybody judges it."""

    sides: tuple[Side, ...]
    """Base first, the candidate last."""
    live: str
    waiting: str | None = None
    """The side on probation."""
    sessions: dict[str, str]
    """Item id to what belongs together in a test."""
    weighting: Weighting | None = None
    rejected_without_correction: int = 0
    retention: tuple[tuple[Answer, ...], tuple[Answer, ...]] | None = None
    """To the items of the retention set: what is live, and the candidate."""
    golden: Golden | None = None
    overheads: tuple[Overhead, ...] = ()
    preferences: Preferences | None = None
    """A judge's, between the candidate's answers and those of what is live, in the order of the answers."""
    no_judge: str = ""
    """Why no judge has a say, in words."""
    seeds: SeedRuns | None = None

    def side(self, name: str) -> Side:
        return next(side for side in self.sides if side.name == name)


def judge_findings(
    found: Findings,
    gate: Gate,
    task: Task,
    *,
    snapshot_id: str,
    held_out: int,
    look: Look = "first",
) -> Report:
    """The report on `found`; `held_out` counts the snapshot's items, unanswerable ones included."""
    found = _without_unread_judge(found)
    evidence, retention = _evidence(found, gate, task)
    decision = decide(evidence, gate, look)
    reach, outcomes = gate.reach(look, len(evidence.gains)), _Outcomes(found)
    answers = found.sides[-1].answers
    return Report(
        snapshot_id=snapshot_id,
        gate=gate,
        look=look,
        holdout_size=len(answers),
        gold_size=sum(answer.correct is not None for answer in answers),
        rejected_without_correction=found.rejected_without_correction,
        # Of searches those with one query are one, and a chat template plays no part.
        unanswerable=0 if task == "embedding" else held_out - len(answers),
        weighting=found.weighting,
        sides=found.sides,
        comparisons=tuple(outcomes.compare(*each, reach) for each in _compared(found, gate, task)),
        live=found.live,
        retention=retention,
        golden=found.golden,
        overheads=found.overheads,
        preferences=found.preferences,
        no_judge=found.no_judge,
        seeds=found.seeds,
        guards=evidence.guards,
        verdict=decision.verdict,
        condition=decision.condition,
        reason=explain(decision, evidence, gate, look),
    )


def _without_unread_judge(found: Findings) -> Findings:
    """The same, but a judge that named no preference at all is none: its ties would decide."""
    judge = found.preferences
    if judge is None or not judge.unread == judge.asked > 0:
        return found
    why = f"{judge.model} named no preference between any of {judge.asked} pairs of answers"
    return found.model_copy(update={"preferences": None, "no_judge": why})


def _evidence(found: Findings, gate: Gate, task: Task) -> tuple[Evidence, Comparison | None]:
    """What decides, and the comparison on the retention set."""
    outcomes, primary, metrics = _Outcomes(found), gate.primary(task), _gating(found, gate, task)
    gains = tuple(outcomes.gain(metric, found.live) for metric in metrics)
    retained, compared = _retained(found, primary, gate.alpha / (len(metrics) + 1)) or (None, None)
    evidence = Evidence(
        gains=gains,
        retention=retained,
        guards=tuple(_guards(found, gate, task)),
        over_waiting=outcomes.gain(primary, found.waiting).effect if found.waiting else None,
        unfair=_unfair(found, gains, judged=JUDGE in gate.gating(task)),
    )
    return evidence, compared


def _gating(found: Findings, gate: Gate, task: Task) -> list[str]:
    """The gating metrics of which there is a value."""
    known = [metric for metric in gate.gating(task) if metric != JUDGE or found.preferences]
    return known or [gate.primary(task)]


def _compared(found: Findings, gate: Gate, task: Task) -> Iterator[tuple[str, str]]:
    """What the report compares: metric and side."""
    primary = gate.primary(task)
    for side in found.sides[:-1]:
        yield primary, side.name
    shown = dict.fromkeys([*_gating(found, gate, task), *([JUDGE] if found.preferences else [])])
    others = [metric for metric in shown if metric != primary]
    for metric in others:
        yield metric, found.live
    base = found.sides[0].name
    if "accuracy" in others and base != found.live:
        yield "accuracy", base


def confirmed(report: Report, served: Findings, task: Task) -> Report:
    """`report` with what a server answered; INCONCLUSIVE where that leads to another verdict.

    `served` are what is live and the candidate, by the server's answers to the held-out prompts.
    """
    again = judge_findings(
        served,
        report.gate,
        task,
        snapshot_id=report.snapshot_id,
        held_out=report.holdout_size,
        look=report.look,
    )
    ours = {answer.item_id: answer.text for answer in report.candidate.answers}
    theirs = {answer.item_id: answer.text for answer in again.candidate.answers}
    same = [ours[item_id].split() == theirs[item_id].split() for item_id in ours.keys() & theirs.keys()]
    found = Served(
        verdict=again.verdict,
        reason=again.reason,
        agreement=sum(same) / len(same) if same else 0.0,
        comparison=again.against(report.live),
    )
    if again.verdict == report.verdict:
        return report.model_copy(update={"served": found})
    reason = (
        f"the engines do not agree: {report.verdict} by transformers ({report.reason}), {again.verdict} by "
        f"the replica ({again.reason}); {found.agreement:.0%} of the candidate's answers are the same"
    )
    changed = {"verdict": "INCONCLUSIVE", "condition": "engines disagree", "reason": reason}
    return report.model_copy(update={"served": found, **changed})


class _Outcomes:
    """What the candidate and the others scored, item by item, over those with gold."""

    def __init__(self, found: Findings) -> None:
        self._found = found
        self._answers = {side.name: {a.item_id: a for a in side.answers} for side in found.sides}
        self._candidate = found.sides[-1].name
        preferred = found.preferences.of_pairs if found.preferences else ()
        self._preferred = dict(zip(self._answers[self._candidate], preferred, strict=False))

    def gain(self, metric: str, other: str) -> Gain:
        new, old, sessions, weights = self._paired(metric, other)
        return gained(new, old, metric=metric, sessions=sessions, weights=weights)

    def compare(self, metric: str, other: str, level: float) -> Comparison:
        new, old, sessions, weights = self._paired(metric, other)
        return compare(
            new, old, against=other, metric=metric, sessions=sessions, weights=weights, level=level
        )

    def _paired(
        self, metric: str, other: str
    ) -> tuple[list[float], list[float], list[str], list[float] | None]:
        weights = self._found.weighting.weights if self._found.weighting else None
        ids, new, old = [], [], []
        for item_id, answer in self._answers[self._candidate].items():
            ours, theirs = self._scores(metric, answer, self._answers[other][item_id])
            # For those without gold, which a judge compares as well, the corrected ones stand.
            stood_for = answer.correct is None and weights is not None
            if ours is not None and theirs is not None and not stood_for:
                ids.append(item_id)
                new.append(ours)
                old.append(theirs)
        sessions = [self._found.sessions[item_id] for item_id in ids]
        return new, old, sessions, None if weights is None else [weights[item_id] for item_id in ids]

    def _scores(self, metric: str, ours: Answer, theirs: Answer) -> tuple[float | None, float | None]:
        if metric != JUDGE:
            return ours.by(metric), theirs.by(metric)
        preferred = self._preferred.get(ours.item_id)
        return (None, None) if preferred is None else ((1 + preferred) / 2, (1 - preferred) / 2)


def _retained(found: Findings, metric: str, level: float) -> tuple[Gain, Comparison] | None:
    """The candidate against what is live on the retention set; None without one. A loss shows at `level`."""
    if not found.retention:
        return None
    live, candidate = (
        [score for answer in side if (score := answer.by(metric)) is not None] for side in found.retention
    )
    sessions = [found.sessions[answer.item_id] for answer in found.retention[0] if answer.correct is not None]
    if not live:
        return None
    comparison = compare(candidate, live, against=found.live, metric=metric, sessions=sessions, level=level)
    return gained(candidate, live, metric=metric, sessions=sessions), comparison


def _unfair(found: Findings, gains: Sequence[Gain], *, judged: bool) -> str:
    """Why the holdout, or the judge where one decides, cannot judge anybody; empty if they can."""
    if judged and found.no_judge:
        return f"without the judge nothing is decided: {found.no_judge}"
    if not gains[0].items:
        return "no held-out item has gold; approve answers or correct them"
    return found.weighting.unfair if found.weighting else ""


def _guards(found: Findings, gate: Gate, task: Task) -> list[Guard]:
    guards = []
    if found.golden:
        guards.append(_golden(found.golden, gate, found.live))
    if task != "embedding":
        guards.append(_valid(found, gate))
    against = next((each for each in found.overheads if each.against == found.live), None)
    if against:
        guards.append(_latency(against, gate))
    return guards


def _golden(golden: Golden, gate: Gate, live: str) -> Guard:
    broken, refused = golden.broken, sum(case.refused for case in golden.failed)
    if not broken:
        words = f"no golden case of {golden.cases} is broken"
        words += f"; the chat template refuses to ask {refused} of them" if refused else ""
        return Guard(name="golden cases", state="kept", words=words)
    named = "; ".join(
        f"{_short(case.asked)!r} is answered {_short(case.candidate)!r}, not {_short(case.expected)!r}"
        for case in broken[:NAMED]
    )
    more = f"; and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
    plural = "case" if len(broken) == 1 else "cases"
    words = (
        f"it breaks {len(broken)} golden {plural} of {golden.cases} that {live} passes "
        f"({gate.golden_tolerance} allowed): {named}{more}"
    )
    return Guard(
        name="golden cases", state="broken" if len(broken) > gate.golden_tolerance else "kept", words=words
    )


def _valid(found: Findings, gate: Gate) -> Guard:
    """Non-inferiority of the share of valid answers, by the score interval of paired shares.

    Where no valid answer was lost there is nothing to doubt, however few answers there are.
    """
    candidate, live = found.sides[-1], found.side(found.live)
    pairs = list(zip(candidate.answers, live.answers, strict=True))
    gained_ = sum(new.valid and not old.valid for new, old in pairs)
    lost = sum(old.valid and not new.valid for new, old in pairs)
    shares = f"valid answers {candidate.valid_rate:.1%} against {live.valid_rate:.1%} of what is live"
    if not lost:
        return Guard(name="valid answers", state="kept", words=f"{shares}; none was lost")
    worth = worth_of([1.0] * len(pairs), [found.sessions[new.item_id] for new, _ in pairs])
    scale = worth / len(pairs)
    least = least_difference(worth, scale * gained_, scale * lost, gate.alpha)
    most = -least_difference(worth, scale * lost, scale * gained_, gate.alpha)
    words = (
        f"{shares} ({lost} of {len(pairs)} lost; between {least:+.1%} and {most:+.1%}; "
        f"down to {-gate.valid_margin:.0%} is allowed)"
    )
    return Guard(name="valid answers", state=_state(least, most, -gate.valid_margin), words=words)


def _latency(overhead: Overhead, gate: Gate) -> Guard:
    words = (
        f"it takes {overhead.ratio:.2f} times as long as what is live for the same work (between "
        f"{overhead.lower:.2f} and {overhead.upper:.2f}; up to {1 + gate.latency_margin:.2f} is allowed)"
    )
    state = _state(-overhead.upper, -overhead.lower, -(1 + gate.latency_margin))
    return Guard(name="latency", state=state, words=words)


def _state(least: float, most: float, allowed: float) -> str:
    """Where an interval lies beside what is allowed."""
    if least > allowed:
        return "kept"
    return "broken" if most < allowed else "open"


def _short(text: str, length: int = 60) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"


def sessions_of(items: Sequence[ReviewedItem]) -> dict[str, str]:
    """What belongs together in a test: the session, else the trace."""
    return {item.id: group(item) for item in items}
