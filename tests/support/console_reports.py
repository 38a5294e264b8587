"""Reports to look at, one of each kind: answers as models might give them, scored and judged for real."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.metrics.latency import compute_overhead
from evaluation.metrics.llm_judge import Preferences
from evaluation.metrics.measures import Overhead
from evaluation.metrics.retrieval import average_rankings, build_library, rank_documents
from evaluation.metrics.scoring import Scorer, build_scorer
from evaluation.report import Report, ScoredAnswer, SeedRuns, Side
from evaluation.rules import Gate, Look
from evaluation.score_side import (
    RawAnswer,
    SideAnswers,
    score_answers,
    score_golden,
    score_searches,
    score_side,
)
from evaluation.verdict.findings import Findings
from evaluation.verdict.judge_findings import confirm_by_replica, judge_findings, map_sessions
from evaluation.weighting.weights import weigh
from extractors.dataset.snapshot import Snapshot
from extractors.examples.types import JudgedDocument, ReviewedItem, ReviewedRetrieval
from extractors.traffic_sample import TrafficCall
from tests.support.runs import make_race
from tests.support.snapshots import BEGAN, make_example, make_item
from trainers.planning.method_rules import Task

LABELS = ("billing", "shipping", "returns", "account", "complaints")
EVIL = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'> ${alert(1)} `x`"
TAKEN_FOR = {"shipping": "returns", "returns": "shipping", "billing": "account", "account": EVIL}
"""What a wrong answer says."""
CASES = (
    ("the parcel is on fire", "shipping"),
    ("charged after I closed my account", "billing"),
    (f"send it back {EVIL}", "returns"),
    ("forget my data", "account"),
)


@dataclass(frozen=True)
class Model:
    """One side, and how good it is."""

    name: str
    right: int
    """Held-out items that it answers right: of the first ones all but a few."""
    ms: float = 20.0
    breaks: tuple[int, ...] = ()
    """Golden cases that it fails, from 0."""
    retains: float = 0.9
    """Share of older traffic that it answers right."""


def _is_right(model: Model, number: int, of: int) -> bool:
    """Better models know most of what worse ones know."""
    mixed = random.Random(f"{model.name} {number}").random()
    return number < model.right if mixed > 0.1 else number >= of - model.right


def _to_answers(texts: Sequence[str]) -> tuple[RawAnswer, ...]:
    return tuple(RawAnswer(text=each, ended=True) for each in texts)


def _find_gold(item: ReviewedItem) -> str:
    assert item.gold is not None
    return item.gold.content


# ---- routing


def build_routing_report(
    snapshot: Snapshot, live: Model, candidate: Model, *others: Model, traffic: Sequence[TrafficCall] = ()
) -> Report:
    """A classification: with golden cases, older traffic, and where there is `traffic`, weights."""
    scoring = build_scorer("classification", LABELS, ())
    older = [make_item(900 + n, (f"last year, parcel {n}", "shipping")) for n in range(30)]
    cases = [make_example(800 + n, case) for n, case in enumerate(CASES)]
    sides = [_build_routing_side(model, snapshot.holdout, scoring) for model in (*others, live, candidate)]
    found = Findings(
        sides=tuple(sides),
        live=live.name,
        sessions=map_sessions([*snapshot.holdout, *older]),
        weighting=weigh(snapshot.holdout, traffic, live=live.name) if traffic else None,
        retention=(
            _answer_older_traffic(live, older, scoring),
            _answer_older_traffic(candidate, older, scoring),
        ),
        golden=score_golden(cases, _answer_cases(live), _answer_cases(candidate), scoring),
        overheads=_measure_overheads(candidate, live, *others),
    )
    return _judge(found, snapshot, "classification")


def _build_routing_side(model: Model, items: Sequence[ReviewedItem], scoring: Scorer) -> Side:
    of = len(items)
    said = [
        _find_gold(item) if _is_right(model, number, of) else TAKEN_FOR[_find_gold(item)]
        for number, item in enumerate(items)
    ]
    weighed = tuple(_build_likelihoods(f"{model.name} {number}", label) for number, label in enumerate(said))
    return score_side(
        model.name, items, SideAnswers(held_out=_to_answers(said), labels=weighed), scoring, LABELS, model.ms
    )


def _build_likelihoods(seed: str, said: str) -> tuple[float, ...]:
    """Log-likelihoods of the labels."""
    sure = random.Random(seed).uniform(0.4, 0.99) if said in LABELS else 0.2
    return tuple(math.log(sure if label == said else (1 - sure) / (len(LABELS) - 1)) for label in LABELS)


def _answer_older_traffic(
    model: Model, items: Sequence[ReviewedItem], scoring: Scorer
) -> tuple[ScoredAnswer, ...]:
    said = [_find_gold(item) if n < model.retains * len(items) else "billing" for n, item in enumerate(items)]
    return score_answers(items, _to_answers(said), scoring)


def _answer_cases(model: Model) -> tuple[RawAnswer, ...]:
    return _to_answers(
        [TAKEN_FOR[label] if number in model.breaks else label for number, (_, label) in enumerate(CASES)]
    )


def _measure_overheads(candidate: Model, *others: Model) -> tuple[Overhead, ...]:
    def seconds(model: Model) -> list[float]:
        noise = random.Random(model.name)
        return [model.ms / 1000 * noise.uniform(0.9, 1.1) for _ in range(16)]

    return tuple(
        compute_overhead(seconds(candidate), seconds(other), against=other.name, alpha=0.05)
        for other in others
    )


def build_traffic_like(items: Sequence[ReviewedItem], *, rarely: str, times: int) -> tuple[TrafficCall, ...]:
    """Traffic in which what the version `rarely` answered is so many times rarer than among the items."""
    copies = [(item, copy) for item in items for copy in range(1 if item.answered_by == rarely else times)]
    return tuple(
        TrafficCall(
            span_id=f"{10_000 + number:016x}",
            trace_id=f"{10_000 + number:032x}",
            text=f"{item.prompt[-1].content} {copy or ''}".strip(),
            prompt_key=f"{item.prompt_key} {copy}",
            answered_by=item.answered_by,
        )
        for number, (item, copy) in enumerate(copies)
    )


# ---- written answers


def build_writing_report(
    snapshot: Snapshot,
    live: Model,
    candidate: Model,
    *others: Model,
    look: Look = "first",
    judged: bool = False,
) -> Report:
    """Texts: where `judged`, with a race, several seeds, a judge, and a replica's word on it."""
    sides = tuple(_build_writing_side(model, snapshot.holdout) for model in (*others, live, candidate))
    found = Findings(
        sides=sides,
        live=live.name,
        sessions=map_sessions(snapshot.holdout),
        overheads=_measure_overheads(candidate, live, *others),
        preferences=_find_preferences(sides) if judged else None,
        seeds=_build_seed_runs(sides[-1].average("token_f1")) if judged else None,
        race=make_race("token_f1") if judged else None,
    )
    report = _judge(found, snapshot, "generation", look)
    if not judged:
        return report
    answered = (report.find_side(live.name), report.candidate)
    served = Findings(sides=answered, live=live.name, sessions=map_sessions(snapshot.holdout))
    return confirm_by_replica(report, served, "generation")


def _build_writing_side(model: Model, items: Sequence[ReviewedItem]) -> Side:
    of = len(items)
    texts = [
        _find_gold(item)
        if _is_right(model, number, of)
        else " ".join(_find_gold(item).split()[3 + number % 3 :])
        for number, item in enumerate(items)
    ]
    nats = tuple((-1 / model.right, -4 / model.right) for _ in items)
    answers = SideAnswers(held_out=_to_answers(texts), gold=nats)
    return score_side(model.name, items, answers, build_scorer("generation", (), ()), latency_ms=model.ms)


def _build_seed_runs(nearness: float) -> SeedRuns:
    return SeedRuns(metric="token_f1", scores=(nearness - 0.05, nearness, nearness + 0.025))


def _find_preferences(sides: Sequence[Side]) -> Preferences:
    before, after = sides[-2].answers, sides[-1].answers
    of_pairs = [bool(new.correct) - bool(old.correct) for old, new in zip(before, after, strict=True)]
    asked = sum(old.text != new.text for old, new in zip(before, after, strict=True))
    return Preferences(
        model="judge-7b", of_pairs=tuple(of_pairs), asked=asked, contradicted=0.12, unread=1, calls=2 * asked
    )


# ---- fields


def build_extraction_report(snapshot: Snapshot, live: Model, candidate: Model) -> Report:
    """JSON with fields, of which some are wrong."""
    sides = tuple(_build_extraction_side(model, snapshot.holdout) for model in (live, candidate))
    found = Findings(
        sides=sides,
        live=live.name,
        sessions=map_sessions(snapshot.holdout),
        overheads=_measure_overheads(candidate, live),
    )
    return _judge(found, snapshot, "extraction")


def _build_extraction_side(model: Model, items: Sequence[ReviewedItem]) -> Side:
    of = len(items)
    texts = [
        _find_gold(item)
        if _is_right(model, number, of)
        else ('{"amount": 1}' if (number + model.right) % 2 else "no idea")
        for number, item in enumerate(items)
    ]
    return score_side(
        model.name,
        items,
        SideAnswers(held_out=_to_answers(texts)),
        build_scorer("extraction", (), ()),
        latency_ms=model.ms,
    )


# ---- searches


def build_searches(n: int) -> tuple[ReviewedRetrieval, ...]:
    """Searches with one relevant document of three each."""
    return tuple(
        ReviewedRetrieval(
            query=f"how do I clean kettle {number}",
            documents=tuple(
                JudgedDocument(text=f"page {page} on kettle {number}", relevant=page == 0)
                for page in range(3)
            ),
            source_span_ids=(f"{number:016x}",),
            trace_id=f"{number:032x}",
            prompt_key=f"kettle {number}",
            started_at=BEGAN,
        )
        for number in range(n)
    )


def build_search_report(snapshot: Snapshot, live: Model, candidate: Model) -> Report:
    """Encoders, of which the better one finds more relevant documents first."""
    library = build_library(snapshot.retrievals)
    sides = []
    for model in (live, candidate):
        chance = np.random.default_rng(model.right)
        ranked = []
        for number, query in enumerate(library.queries):
            scores = chance.random(len(library.documents))
            scores[list(query.relevant)] += 1 if _is_right(model, number, len(library.queries)) else 0.4
            ranked.append(rank_documents(query, scores))
        sides.append(score_searches(average_rankings(model.name, ranked), model.ms))
    found = Findings(
        sides=tuple(sides),
        live=live.name,
        sessions={query.item_id: query.session for query in library.queries},
        overheads=_measure_overheads(candidate, live),
    )
    return _judge(found, snapshot, "embedding")


def _judge(found: Findings, snapshot: Snapshot, task: Task, look: Look = "first") -> Report:
    return judge_findings(
        found, Gate(), task, snapshot_id=snapshot.id, held_out=snapshot.manifest.holdout, look=look
    )


# ---- of before


def build_old_report(report: Report) -> Report:
    """Return the report as the migration makes it from one of the time when only accuracy was measured."""
    bare = {"answers": True, "name": True, "accuracy": True, "valid_rate": True, "latency_ms": True}
    kept = report.model_dump(
        mode="json",
        include={"snapshot_id", "holdout_size", "gold_size", "rejected_without_correction", "live", "verdict"}
        | {"reason"},
    )
    return Report.model_validate(
        kept
        | {
            "schema_version": 2,
            "gate": {"rule": "one-look"},
            "condition": "better" if report.verdict == "PROMOTE" else "not better",
            "sides": [
                side.model_dump(mode="json", include={*bare, "repeated_rejected"}) for side in report.sides
            ],
            "comparisons": [
                each.model_dump(mode="json") for each in report.comparisons if each.metric == "accuracy"
            ],
        }
    )
