"""Turn the sides of an evaluation into its report: comparisons, guards and the verdict on them. Pure."""

from collections.abc import Iterator, Sequence

from evaluation.report import (
    PairedComparison,
    ReplicaVerdict,
    Report,
    ScoredAnswer,
)
from evaluation.rules import JUDGE, Gate, Look
from evaluation.verdict.decide import Evidence, decide, explain
from evaluation.verdict.findings import Findings
from evaluation.verdict.guards import check_guards
from evaluation.verdict.paired_tests import (
    Gain,
    PairedScores,
    compare_scores,
    compute_gain,
)
from extractors.dataset.holdout_split import find_group
from extractors.examples.types import ReviewedItem
from trainers.planning.method_rules import Task


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
        general=found.general,
        no_general=found.no_general,
        overheads=found.overheads,
        preferences=found.preferences,
        no_judge=found.no_judge,
        seeds=found.seeds,
        race=found.race,
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
        guards=tuple(check_guards(found, gate, task)),
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
        # No replica is asked everyday questions.
        served.model_copy(update={"general": report.general, "no_general": report.no_general}),
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


def map_sessions(items: Sequence[ReviewedItem]) -> dict[str, str]:
    """Return the session, else the trace, of each item, by the item's id."""
    return {item.id: find_group(item) for item in items}
