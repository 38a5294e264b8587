"""Turn the sides of an evaluation into its report: comparisons, guards and the verdict on them. Pure."""

from collections.abc import Iterator, Sequence

from evaluation.metrics.llm_judge import Preferences
from evaluation.metrics.measures import Overhead
from evaluation.report import (
    GoldenResults,
    PairedComparison,
    PromotionGuard,
    ReplicaVerdict,
    Report,
    ScoredAnswer,
    SeedRuns,
    Side,
)
from evaluation.rules import JUDGE, Gate, Look
from evaluation.verdict.decide import Evidence, decide, explain
from evaluation.verdict.paired_tests import (
    Gain,
    PairedScores,
    compare_scores,
    compute_gain,
    compute_least_difference,
    count_effective_items,
)
from evaluation.weighting.weighting import Weighting
from extractors.dataset.holdout_split import find_group
from extractors.examples.types import ReviewedItem
from extractors.values import Value
from trainers.planning.method_rules import Task

NAMED = 3
"""Golden cases that the reason names at most; the report has all."""


class Findings(Value):
    """Everything that an evaluation measured, before it is judged."""

    sides: tuple[Side, ...]
    """Base first, the candidate last."""
    live: str
    waiting: str | None = None
    """The side on probation."""
    sessions: dict[str, str]
    """Item id to session; the items of a session are not independent."""
    weighting: Weighting | None = None
    rejected_without_correction: int = 0
    retention: tuple[tuple[ScoredAnswer, ...], tuple[ScoredAnswer, ...]] | None = None
    """Answers to the retention set: those of what is live, and the candidate's."""
    golden: GoldenResults | None = None
    overheads: tuple[Overhead, ...] = ()
    preferences: Preferences | None = None
    """A judge's, between the candidate's answers and those of what is live, in the order of the answers."""
    no_judge: str = ""
    """Why no judge has a say, in words; empty where one has, or none was asked for."""
    seeds: SeedRuns | None = None

    def find_side(self, name: str) -> Side:
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
    """Return the report on `found`.

    `held_out` counts the snapshot's held-out items, those whose prompts the chat template refuses included.
    """
    found = _drop_unread_judge(found)
    evidence, retention = _gather_evidence(found, gate, task)
    decision = decide(evidence, gate, look)
    level, scores = gate.detection_level(look, len(evidence.gains)), _ItemScores(found)
    answers = found.sides[-1].answers
    return Report(
        snapshot_id=snapshot_id,
        gate=gate,
        look=look,
        holdout_size=len(answers),
        gold_size=sum(answer.correct is not None for answer in answers),
        rejected_without_correction=found.rejected_without_correction,
        # Searches with the same query are one item, and no chat template renders them.
        unanswerable=0 if task == "embedding" else held_out - len(answers),
        weighting=found.weighting,
        sides=found.sides,
        comparisons=tuple(scores.compare(*each, level) for each in _list_comparisons(found, gate, task)),
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


def _drop_unread_judge(found: Findings) -> Findings:
    """Return `found` without a judge that named no preference at all: its ties would decide."""
    judge = found.preferences
    if judge is None or not judge.unread == judge.asked > 0:
        return found
    why = f"{judge.model} named no preference between any of {judge.asked} pairs of answers"
    return found.model_copy(update={"preferences": None, "no_judge": why})


def _gather_evidence(found: Findings, gate: Gate, task: Task) -> tuple[Evidence, PairedComparison | None]:
    """Return what decides, and the comparison on the retention set."""
    scores, primary = _ItemScores(found), gate.primary_metric(task)
    metrics = _find_gating_metrics(found, gate, task)
    gains = tuple(scores.compute_gain(metric, found.live) for metric in metrics)
    retained, compared = _compare_retention(found, primary, gate.alpha / (len(metrics) + 1)) or (None, None)
    evidence = Evidence(
        gains=gains,
        retention=retained,
        guards=tuple(_check_guards(found, gate, task)),
        over_waiting=scores.compute_gain(primary, found.waiting).effect if found.waiting else None,
        unfair=_find_unfairness(found, gains, judged=JUDGE in gate.gating_metrics(task)),
    )
    return evidence, compared


def _find_gating_metrics(found: Findings, gate: Gate, task: Task) -> list[str]:
    """Return the gating metrics that were measured."""
    known = [metric for metric in gate.gating_metrics(task) if metric != JUDGE or found.preferences]
    return known or [gate.primary_metric(task)]


def _list_comparisons(found: Findings, gate: Gate, task: Task) -> Iterator[tuple[str, str]]:
    """Yield what the report compares: metric and side."""
    primary = gate.primary_metric(task)
    for side in found.sides[:-1]:
        yield primary, side.name
    shown = dict.fromkeys([*_find_gating_metrics(found, gate, task), *([JUDGE] if found.preferences else [])])
    others = [metric for metric in shown if metric != primary]
    for metric in others:
        yield metric, found.live
    base = found.sides[0].name
    if "accuracy" in others and base != found.live:
        yield "accuracy", base


def confirm_by_replica(report: Report, served: Findings, task: Task) -> Report:
    """Return `report` with the verdict on a replica's answers; INCONCLUSIVE where the two verdicts differ.

    `served` has what is live and the candidate, by the replica's answers to the held-out prompts.
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
    found = ReplicaVerdict(
        verdict=again.verdict,
        reason=again.reason,
        agreement=sum(same) / len(same) if same else 0.0,
        comparison=again.find_comparison(report.live),
    )
    if again.verdict == report.verdict:
        return report.model_copy(update={"served": found})
    reason = (
        f"the engines do not agree: {report.verdict} by transformers ({report.reason}), {again.verdict} by "
        f"the replica ({again.reason}); {found.agreement:.0%} of the candidate's answers are the same"
    )
    changed = {"verdict": "INCONCLUSIVE", "condition": "engines disagree", "reason": reason}
    return report.model_copy(update={"served": found, **changed})


class _ItemScores:
    """The scores of the candidate and of the other sides, item by item, over the items with gold."""

    def __init__(self, found: Findings) -> None:
        self._found = found
        self._answers = {side.name: {a.item_id: a for a in side.answers} for side in found.sides}
        self._candidate = found.sides[-1].name
        preferred = found.preferences.of_pairs if found.preferences else ()
        self._preferred = dict(zip(self._answers[self._candidate], preferred, strict=False))

    def compute_gain(self, metric: str, other: str) -> Gain:
        return compute_gain(self._pair(metric, other), metric)

    def compare(self, metric: str, other: str, level: float) -> PairedComparison:
        return compare_scores(self._pair(metric, other), against=other, level=level, metric=metric)

    def _pair(self, metric: str, other: str) -> PairedScores:
        weights = self._found.weighting.weights if self._found.weighting else None
        ids, new, old = [], [], []
        for item_id, answer in self._answers[self._candidate].items():
            ours, theirs = self._score(metric, answer, self._answers[other][item_id])
            # A judge also compares answers without gold; with weights, the corrected items stand for these.
            stood_for = answer.correct is None and weights is not None
            if ours is not None and theirs is not None and not stood_for:
                ids.append(item_id)
                new.append(ours)
                old.append(theirs)
        return PairedScores(
            candidate=new,
            other=old,
            sessions=[self._found.sessions[item_id] for item_id in ids],
            weights=None if weights is None else [weights[item_id] for item_id in ids],
        )

    def _score(
        self, metric: str, ours: ScoredAnswer, theirs: ScoredAnswer
    ) -> tuple[float | None, float | None]:
        if metric != JUDGE:
            return ours.get_score(metric), theirs.get_score(metric)
        preferred = self._preferred.get(ours.item_id)
        return (None, None) if preferred is None else ((1 + preferred) / 2, (1 - preferred) / 2)


def _compare_retention(found: Findings, metric: str, level: float) -> tuple[Gain, PairedComparison] | None:
    """Compare the candidate with what is live on the retention set; None without one.

    A loss shows at p <= `level`.
    """
    if not found.retention:
        return None
    live, candidate = (
        [score for answer in side if (score := answer.get_score(metric)) is not None]
        for side in found.retention
    )
    sessions = [found.sessions[answer.item_id] for answer in found.retention[0] if answer.correct is not None]
    if not live:
        return None
    scores = PairedScores(candidate, live, sessions)
    return compute_gain(scores, metric), compare_scores(
        scores, against=found.live, level=level, metric=metric
    )


def _find_unfairness(found: Findings, gains: Sequence[Gain], *, judged: bool) -> str:
    """Return why the holdout, or the judge that decides, cannot judge any candidate; empty if they can."""
    if judged and found.no_judge:
        return f"without the judge nothing is decided: {found.no_judge}"
    if not gains[0].items:
        return "no held-out item has gold; approve answers or correct them"
    return found.weighting.unfair if found.weighting else ""


def _check_guards(found: Findings, gate: Gate, task: Task) -> list[PromotionGuard]:
    guards = []
    if found.golden:
        guards.append(_check_golden_cases(found.golden, gate, found.live))
    if task != "embedding":
        guards.append(_check_valid_answers(found, gate))
    against = next((each for each in found.overheads if each.against == found.live), None)
    if against:
        guards.append(_check_latency(against, gate))
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


def _find_guard_state(least: float, most: float, allowed: float) -> str:
    """Tell from an interval whether the guard holds at the least value that is allowed."""
    if least > allowed:
        return "kept"
    return "broken" if most < allowed else "open"


def _shorten(text: str, length: int = 60) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"


def map_sessions(items: Sequence[ReviewedItem]) -> dict[str, str]:
    """Return the session, else the trace, of each item, by the item's id."""
    return {item.id: find_group(item) for item in items}
