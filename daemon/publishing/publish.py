"""What a target's cycles did, told to Phoenix: two spans for each run, its holdout and answers to compare.

No cycle waits for Phoenix. What it has not got yet is told again until it shows it, and only then marked in
the store: at least once. Everything has the run's id in Phoenix, so what is told twice is there once.

    EXPERIMENT span      a cycle that trained, or that looked at a version again
    └─ EVALUATION span   its verdict: candidate and base
    dataset              the target's holdout, of which each window is a version
    └─ experiments       what is live, the candidate and every other side, answer by answer
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from pydantic import JsonValue

from daemon.runtime.child_process import Interrupted
from daemon.runtime.context import Loop
from daemon.serving.promotion import adapter_folder
from daemon.views.report_text import answer_words, role, titled
from daemon.views.run_files import progress_of
from evaluation.metrics.retrieval import library
from evaluation.report import Answer, Comparison, Report, Side
from extractors.dataset.snapshot import Snapshot, SnapshotDamaged
from extractors.examples.types import Message, ReviewedItem
from extractors.phoenix.client import PhoenixClient
from extractors.phoenix.http import PhoenixAnswer, PhoenixError
from extractors.phoenix.write_experiments import (
    ExampleRun,
    ExperimentSide,
    HoldoutExample,
    RunExperiments,
    publish_experiments,
)
from extractors.phoenix.write_spans import (
    BothMetrics,
    Data,
    Evaluated,
    EvaluationSpan,
    Experiment,
    ExperimentSpan,
    Improvement,
    Output,
    Params,
    SideMetrics,
    TrainingMetrics,
    publish_spans,
)
from extractors.values import LearndError
from registry.cycles import Cycle, CycleState, Trained
from registry.store.database import StoreUnavailable
from registry.versions import Version
from trainers.planning.plan import Plan, Stage

BACKENDS = {"embedding": "sentence-transformers"}
"""What trains, by the method."""
BACKEND = "trl"
SYSTEM = frozenset({"system", "developer"})


log = structlog.get_logger()


class NotPublished(LearndError):
    """Phoenix is there, and has not got a run."""


def publish_target(loop: Loop, client: PhoenixClient) -> int:
    """Have Phoenix keep every run of the target that it has not got, oldest first; returns how many.

    Raises PhoenixError where Phoenix is not there: all is told at the next call. Raises NotPublished where
    it is, and one run does not get there: that keeps no later one waiting, and is given up after
    `MOST_TRIES`. Raises Interrupted when the daemon is to stop.
    """
    published, problems = 0, []
    for cycle in loop.store.unpublished_cycles(loop.target.key):
        try:
            compare_path = _publish(loop, client, Run.read(loop, cycle.id))
        except (Interrupted, StoreUnavailable):
            raise
        except (LearndError, LookupError, OSError, ValueError) as problem:
            # A run whose files are gone or damaged is no reason to keep the others waiting.
            if isinstance(problem, PhoenixError):
                _must_be_there(client)
            log.warning("run not published", cycle=cycle.id, exc_info=not isinstance(problem, LearndError))
            words = (
                str(problem) if isinstance(problem, LearndError) else f"{type(problem).__name__}: {problem}"
            )
            loop.store.not_published(cycle.id, words)
            problems.append(f"Phoenix has not got {cycle.id}: {words}")
        else:
            loop.store.published(cycle.id, loop.clock(), compare_path)
            published += 1
    if problems:
        raise NotPublished("; ".join(problems))
    return published


def _must_be_there(client: PhoenixClient) -> None:
    """Raises PhoenixError where Phoenix does not answer at all, or not to this key."""
    client.http.json("GET", "/v1/projects", params={"limit": "1"})


@dataclass(frozen=True)
class Run:
    """A cycle that ended, with what is told of it."""

    loop: Loop
    cycle: Cycle
    version: Version | None
    """The candidate; None where the training failed."""
    trained: Cycle
    """The cycle that trained the candidate: itself, but for a second look."""
    snapshot: Snapshot | None
    """What it was judged on, and but for a second look trained on; None where retention has removed it."""

    @classmethod
    def read(cls, loop: Loop, cycle_id: str) -> "Run":
        cycle = loop.store.cycle(cycle_id)
        version = loop.store.version(cycle.version_id) if cycle.version_id else None
        trained = loop.store.cycle(version.cycle_id) if version else cycle
        try:
            snapshot = loop.snapshot(cycle.snapshot_id) if cycle.snapshot_id else None
        except SnapshotDamaged:
            snapshot = None
        return cls(loop, cycle, version, trained, snapshot)

    @property
    def adapter_path(self) -> str | None:
        return str(adapter_folder(self.loop.data_dir, self.version)) if self.version else None

    def times(self, job: str) -> tuple[datetime, datetime]:
        """When the jobs whose names begin so worked, by what they said; the cycle's where that is gone."""
        said = progress_of(self.loop.settings, self.cycle).items()
        at = [
            datetime.fromisoformat(line["at"])
            for name, lines in said
            if name.startswith(job)
            for line in lines
        ]
        return (min(at), max(at)) if at else (self.cycle.started_at, self.cycle.updated_at)


def _publish(loop: Loop, client: PhoenixClient, run: Run) -> str | None:
    """Path of Phoenix's page that compares the sides; None where there is nothing to compare."""
    project = loop.settings.phoenix.experiments_project
    if not publish_spans(client, project, experiment_span(run), evaluation_span(run)):
        raise PhoenixAnswer(
            f"Phoenix has taken the spans of {run.cycle.id} and does not show them; they are sent again"
        )
    experiments = experiments_of(run)
    if experiments is None:
        return None

    def unless_stopped() -> None:
        if loop.stop.is_set():
            raise Interrupted(f"stopped while {run.cycle.id} was published; the next start goes on with it")

    return publish_experiments(client, experiments, on_write=unless_stopped).compare_path


# ---- the spans


def experiment_span(run: Run) -> ExperimentSpan:
    """The fine-tuning.

    A second look has one as well, so that each run is found by its id and its evaluation has a parent. It
    names what the candidate was trained with, but neither data nor metrics: those are the training run's,
    and who sums them up over all runs should count each training once.
    """
    plan = run.trained.plan
    if plan is None:
        raise LookupError(f"{run.trained.id} trained and lacks its plan; the store was edited by hand")
    second = run.cycle.plan is None
    started_at, ended_at = (run.cycle.started_at, run.cycle.updated_at) if second else run.times("train-")
    stages = list(_stages(run.trained, plan))
    return ExperimentSpan(
        started_at=started_at,
        ended_at=ended_at,
        error=run.cycle.reason if run.cycle.state is CycleState.FAILED else None,
        experiment=Experiment(run_id=run.cycle.id, agent_type=run.loop.target.agent),
        params=_params(plan, [stage for stage, _ in stages] or plan.stages),
        data=Data() if second else _data(run, plan, [stage for stage, _ in stages] or plan.stages),
        metrics=TrainingMetrics() if second or not stages else _metrics(run, *stages[-1]),
        output=Output(adapter_path=run.adapter_path),
    )


def _stages(trained: Cycle, plan: Plan) -> Iterator[tuple[Stage, Trained]]:
    """The stages that made the candidate: of several runs with other seeds those of the median one."""
    seeds = trained.report.seeds if trained.report else None
    median = seeds.median if seeds else 0
    of_run = [each for each in trained.training if each.run == median]
    for stage, took in zip(plan.stages, of_run, strict=False):
        if not took.left_out:
            yield stage, took


def _params(plan: Plan, stages: Sequence[Stage]) -> Params:
    """Of several stages, all methods, and the hyperparameters of the last; all share the adapter's shape."""
    last = stages[-1].hyperparameters
    return Params(
        base_model=plan.base_model,
        method="+".join(stage.method for stage in stages),
        backend=BACKENDS.get(stages[-1].method, BACKEND),
        backend_provider="local",
        epochs=last.epochs,
        batch_size=last.batch_size,
        learning_rate=last.learning_rate,
        use_lora=True,
        lora_r=last.lora_rank,
        lora_alpha=last.lora_alpha,
    )


def _data(run: Run, plan: Plan, stages: Sequence[Stage]) -> Data:
    """What people said of the traffic, and what of it is trained and validated on.

    A corrected answer counts as rejected: people did not take it as it was.
    """
    counts = run.cycle.counts
    reviewed: Mapping[str, int] = counts.get("reviewed", {})
    train, validation = counts.get("train", plan.counts), counts.get("validation", {})
    kinds = {stage.data for stage in stages}
    synthetic = _synthetic(run.snapshot, kinds) if run.snapshot else None
    return Data(
        total_spans=sum(reviewed.values()) + sum(counts.get("dropped", {}).values()),
        approved_count=reviewed.get("approved", 0),
        rejected_count=reviewed.get("rejected", 0) + reviewed.get("corrected", 0),
        preference_pairs=train.get("pairs", 0) + validation.get("pairs", 0),
        dataset_size=sum(train.get(kind, 0) + validation.get(kind, 0) for kind in kinds),
        used_synthetic=None if synthetic is None else synthetic > 0,
        synthetic_approved_count=synthetic,
    )


def _synthetic(snapshot: Snapshot, kinds: set[Any]) -> int:
    """Synthetic examples of these kinds; an operator has approved each one."""
    return sum(
        example.origin == "synthetic"
        for side in (snapshot.train, snapshot.validation)
        for kind in kinds
        for example in getattr(side, kind)
    )


def _metrics(run: Run, stage: Stage, took: Trained) -> TrainingMetrics:
    """Of the last stage. Samples are the examples that fit; a validation's figures are the kept step's."""
    figures, counts = took.figures, run.cycle.counts
    kept = next(
        (each for each in figures.get("validation", ()) if each["step"] == figures.get("best_step")), None
    )
    said: Mapping[str, float] = kept["figures"] if kept else {}
    return TrainingMetrics(
        train_loss=figures.get("train_loss"),
        train_samples=figures.get("examples"),
        train_examples=counts.get("train", {}).get(stage.data),
        epochs_completed=figures.get("epochs"),
        used_validation_split=bool(figures.get("validation")),
        eval_loss=kept["loss"] if kept else None,
        eval_samples=figures.get("validated"),
        val_examples=counts.get("validation", {}).get(stage.data),
        eval_reward_accuracy=said.get("reward_accuracy"),
        # KTO has no pairs: how far liked answers are above disliked ones in the mean.
        eval_reward_margin=said.get("reward_margin", said.get("separation")),
    )


def evaluation_span(run: Run) -> EvaluationSpan | None:
    """The candidate beside the base; None where the run was not judged."""
    report = run.cycle.report
    if report is None:
        return None
    started_at, ended_at = run.times("evaluate")
    base, adapter = _accuracies(report)
    return EvaluationSpan(
        started_at=started_at,
        ended_at=ended_at,
        evaluation=Evaluated(
            adapter_path=run.adapter_path, agent_type=run.loop.target.agent, test_size=report.gold_size
        ),
        metrics=BothMetrics(
            base=_side_metrics(report, report.sides[0], base),
            adapter=_side_metrics(report, report.candidate, adapter),
        ),
        improvement=_improvement(report),
    )


def _by_accuracy(report: Report) -> Comparison | None:
    """The candidate and the base by accuracy; None where that does not gate."""
    base = report.sides[0].name
    found = (each for each in report.comparisons if (each.against, each.metric) == (base, "accuracy"))
    return next(found, None)


def _accuracies(report: Report) -> tuple[float, float]:
    """Of the base and the candidate, weighted as the items are where the report says so."""
    compared = _by_accuracy(report)
    if compared and compared.means:
        return compared.means[1], compared.means[0]
    return report.sides[0].accuracy, report.candidate.accuracy


def _side_metrics(report: Report, side: Side, accuracy: float) -> SideMetrics:
    measured = accuracy if report.gold_size else None
    return SideMetrics(
        accuracy=measured,
        top_k_accuracy=side.confidence.top_k_accuracy if side.confidence else None,
        confidence=side.confidence.confidence if side.confidence else None,
        confidence_calibration=side.confidence.confidence_calibration if side.confidence else None,
        error_rate=None if measured is None else 1 - measured,
        hallucination_rate=side.labels.hallucination_rate if side.labels else None,
        # 0 where there was no prompt to time.
        latency_ms=side.latency_ms or None,
    )


def _improvement(report: Report) -> Improvement:
    """Over the base, as the metrics beside it; the verdict compares with what is live.

    The p-value is that of the accuracy, and there is none where accuracy does not gate.
    """
    if not report.gold_size:
        return Improvement()
    sure = (report.sides[0].confidence, report.candidate.confidence)
    base, adapter = _accuracies(report)
    compared = _by_accuracy(report)
    slower = (each.ratio - 1 for each in report.overheads if each.against == report.sides[0].name)
    return Improvement(
        accuracy=adapter - base,
        confidence=sure[1].confidence - sure[0].confidence if sure[0] and sure[1] else None,
        # The share of the base's errors that are gone.
        error_reduction=(adapter - base) / (1 - base) if base < 1 else None,
        latency_overhead=next(slower, None),
        significant=compared.p_value <= report.gate.alpha if compared else None,
        p_value=compared.p_value if compared else None,
    )


# ---- the dataset and its experiments


def experiments_of(run: Run) -> RunExperiments | None:
    """The held-out items and every side's answers to them; None where either is not there (any more)."""
    report = run.cycle.report
    if report is None or run.snapshot is None:
        return None
    examples = {example.id: example for example in _examples(run.snapshot)}
    asked = [examples[answer.item_id] for answer in report.candidate.answers if answer.item_id in examples]
    if not asked:
        return None
    live, candidate = report.side(report.live), report.candidate
    others = [side for side in report.sides if side.name not in {live.name, candidate.name}]
    began, _ = run.times("evaluate")
    return RunExperiments(
        run_id=run.cycle.id,
        dataset=f"learnd {run.loop.target.key} holdout",
        description=f"Reviewed traffic of {run.loop.target.key} that nothing is trained on: learnd judges "
        "adapters by it. Each version is one window of the traffic.",
        examples=tuple(asked),
        sides=tuple(_side(run, report, side, examples, began) for side in (live, candidate, *others)),
    )


def _examples(snapshot: Snapshot) -> Iterator[HoldoutExample]:
    for item in snapshot.holdout:
        yield HoldoutExample(
            id=item.id,
            input=_asked(item),
            output=_gold(item.gold),
            metadata=_about(item),
            span_id=item.source_span_ids[0] if item.source_span_ids else None,
        )
    if not snapshot.retrievals:
        return
    # As the evaluation asks them: searches with one query are one.
    searches = {search.id: search for search in snapshot.retrievals}
    shelf = library(snapshot.retrievals)
    for query in shelf.queries:
        yield HoldoutExample(
            id=query.item_id,
            input={"query": query.text},
            output={"relevant": [shelf.documents[number] for number in query.relevant]},
            span_id=next(iter(searches[query.item_id].source_span_ids), None),
        )


def _asked(item: ReviewedItem) -> dict[str, JsonValue]:
    """The one question behind the system prompt, or the conversation."""
    said = [message for message in item.prompt if message.role not in SYSTEM]
    if [message.role for message in said] == ["user"]:
        return {"question": said[0].content}
    return {"messages": [message.to_chat() for message in said]}


def _gold(gold: Message | None) -> dict[str, JsonValue]:
    if gold is None:
        return {}
    return {"message": gold.to_chat()} if gold.tool_calls else {"answer": gold.content}


def _about(item: ReviewedItem) -> dict[str, JsonValue]:
    system = "\n\n".join(message.content for message in item.prompt if message.role in SYSTEM)
    known: dict[str, JsonValue] = {
        "system": system or None,
        "tools": list(item.tools) or None,
        "session": item.session_id,
        "outcome": item.outcome,
        "answered": item.response.content,
        "answered_by": item.answered_by,
    }
    return {name: value for name, value in known.items() if value is not None}


def _side(
    run: Run, report: Report, side: Side, examples: Mapping[str, HoldoutExample], began: datetime
) -> ExperimentSide:
    known = {
        "target": run.loop.target.key,
        "role": role(report, side.name),
        "look": report.look,
        "verdict": report.verdict if side is report.candidate else None,
        "accuracy": side.accuracy,
        "valid_rate": side.valid_rate,
        "latency_ms": side.latency_ms or None,
        **side.measures,
    }
    return ExperimentSide(
        name=side.name,
        title=titled(report, side.name),
        description=report.reason if side is report.candidate else f"beside {report.candidate.name}",
        metadata={name: value for name, value in known.items() if value is not None},
        runs=tuple(_answered(side, answer, began) for answer in side.answers if answer.item_id in examples),
    )


def _answered(side: Side, answer: Answer, began: datetime) -> ExampleRun:
    """Answers come in batches, so that none has a time of its own: each begins with the evaluation, and
    takes what the same work was measured to take this side.
    """
    return ExampleRun(
        example_id=answer.item_id,
        output=answer_words(answer),
        started_at=began,
        ended_at=began + timedelta(milliseconds=side.latency_ms),
        correct=answer.correct,
        valid=answer.valid,
        measures=answer.scores,
    )
