"""The EXPERIMENT and EVALUATION spans of a run, as attributes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from daemon.publishing.run import FinishedRun
from daemon.publishing.span_attributes import (
    DataAttributes,
    EvaluationAttributes,
    EvaluationMetrics,
    EvaluationSpan,
    ExperimentAttributes,
    ExperimentSpan,
    FineTuningMetrics,
    ImprovementAttributes,
    OutputAttributes,
    ParameterAttributes,
    SideMetrics,
)
from evaluation.report import PairedComparison, Report, Side
from extractors.dataset.snapshot import Snapshot
from registry.cycles import Cycle, CycleState, ReviewedCounts, StageResult
from trainers.planning.plan import Plan, TrainingStage

BACKENDS = {"embedding": "sentence-transformers"}
"""What trains, by the method."""


BACKEND = "trl"


def build_experiment_span(run: FinishedRun) -> ExperimentSpan:
    """The fine-tuning.

    A second look has one as well, so that each run is found by its id and its evaluation has a parent. It
    names what the candidate was trained with, but neither data nor metrics: those are the training run's,
    and who sums them up over all runs should count each training once.
    """
    plan = run.trained.plan
    if plan is None:
        raise LookupError(f"{run.trained.id} trained and lacks its plan; the store was edited by hand")
    second = run.cycle.plan is None
    started_at, ended_at = (
        (run.cycle.started_at, run.cycle.updated_at) if second else run.find_times("train-")
    )
    stages = list(_find_stages(run.trained, plan))
    return ExperimentSpan(
        started_at=started_at,
        ended_at=ended_at,
        error=run.cycle.reason if run.cycle.state is CycleState.FAILED else None,
        experiment=ExperimentAttributes(run_id=run.cycle.id, agent_type=run.target.agent),
        params=_build_parameters(plan, [stage for stage, _ in stages] or plan.stages),
        data=DataAttributes()
        if second
        else _build_data(run, plan, [stage for stage, _ in stages] or plan.stages),
        metrics=FineTuningMetrics() if second or not stages else _build_training_metrics(run, *stages[-1]),
        output=OutputAttributes(adapter_path=run.adapter_path),
    )


def _find_stages(trained: Cycle, plan: Plan) -> Iterator[tuple[TrainingStage, StageResult]]:
    """The stages that made the candidate: of several runs with other seeds those of the median one."""
    seeds = trained.report.seeds if trained.report else None
    median = seeds.median if seeds else 0
    of_run = [each for each in trained.training if each.run == median]
    for stage, took in zip(plan.stages, of_run, strict=False):
        if not took.left_out:
            yield stage, took


def _build_parameters(plan: Plan, stages: Sequence[TrainingStage]) -> ParameterAttributes:
    """Of several stages, all methods, and the hyperparameters of the last; all share the adapter's shape."""
    last = stages[-1].hyperparameters
    return ParameterAttributes(
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


def _build_data(run: FinishedRun, plan: Plan, stages: Sequence[TrainingStage]) -> DataAttributes:
    """What people said of the traffic, and what of it is trained and validated on.

    A corrected answer counts as rejected: people did not take it as it was.
    """
    counts = run.cycle.counts
    reviewed = counts.reviewed or ReviewedCounts()
    train = plan.counts if counts.train is None else counts.train
    validation = counts.validation or {}
    kinds = {stage.data for stage in stages}
    synthetic = _count_synthetic(run.snapshot, kinds) if run.snapshot else None
    return DataAttributes(
        total_spans=reviewed.total + sum(counts.dropped.values()),
        approved_count=reviewed.approved,
        rejected_count=reviewed.rejected + reviewed.corrected,
        preference_pairs=train.get("pairs", 0) + validation.get("pairs", 0),
        dataset_size=sum(train.get(kind, 0) + validation.get(kind, 0) for kind in kinds),
        used_synthetic=None if synthetic is None else synthetic > 0,
        synthetic_approved_count=synthetic,
    )


def _count_synthetic(snapshot: Snapshot, kinds: set[Any]) -> int:
    """Synthetic examples of these kinds; an operator has approved each one."""
    return sum(
        example.origin == "synthetic"
        for side in (snapshot.train, snapshot.validation)
        for kind in kinds
        for example in getattr(side, kind)
    )


def _build_training_metrics(run: FinishedRun, stage: TrainingStage, took: StageResult) -> FineTuningMetrics:
    """Of the last stage. Samples are the examples that fit; a validation's figures are the kept step's."""
    figures, counts = took.figures, run.cycle.counts
    kept = figures.kept_validation
    measured: Mapping[str, float] = kept.figures if kept else {}
    return FineTuningMetrics(
        train_loss=figures.train_loss,
        train_samples=figures.examples,
        train_examples=(counts.train or {}).get(stage.data),
        epochs_completed=figures.epochs,
        used_validation_split=bool(figures.validation),
        eval_loss=kept.loss if kept else None,
        eval_samples=figures.validated,
        val_examples=(counts.validation or {}).get(stage.data),
        eval_reward_accuracy=measured.get("reward_accuracy"),
        # KTO has no pairs: how far liked answers are above disliked ones in the mean.
        eval_reward_margin=measured.get("reward_margin", measured.get("separation")),
    )


def build_evaluation_span(run: FinishedRun) -> EvaluationSpan | None:
    """The candidate beside the base; None where the run was not judged."""
    report = run.cycle.report
    if report is None:
        return None
    started_at, ended_at = run.find_times("evaluate")
    base, adapter = _find_accuracies(report)
    return EvaluationSpan(
        started_at=started_at,
        ended_at=ended_at,
        evaluation=EvaluationAttributes(
            adapter_path=run.adapter_path, agent_type=run.target.agent, test_size=report.gold_size
        ),
        metrics=EvaluationMetrics(
            base=_build_side_metrics(report, report.sides[0], base),
            adapter=_build_side_metrics(report, report.candidate, adapter),
        ),
        improvement=_build_improvement(report),
    )


def _find_accuracy_comparison(report: Report) -> PairedComparison | None:
    """The candidate and the base by accuracy; None where that does not gate."""
    base = report.sides[0].name
    found = (each for each in report.comparisons if (each.against, each.metric) == (base, "accuracy"))
    return next(found, None)


def _find_accuracies(report: Report) -> tuple[float, float]:
    """Of the base and the candidate, weighted as the items are where the report says so."""
    compared = _find_accuracy_comparison(report)
    if compared and compared.means:
        return compared.means[1], compared.means[0]
    return report.sides[0].accuracy, report.candidate.accuracy


def _build_side_metrics(report: Report, side: Side, accuracy: float) -> SideMetrics:
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


def _build_improvement(report: Report) -> ImprovementAttributes:
    """Over the base, as the metrics beside it; the verdict compares with what is live.

    The p-value is that of the accuracy, and there is none where accuracy does not gate.
    """
    if not report.gold_size:
        return ImprovementAttributes()
    sure = (report.sides[0].confidence, report.candidate.confidence)
    base, adapter = _find_accuracies(report)
    compared = _find_accuracy_comparison(report)
    slower = (each.ratio - 1 for each in report.overheads if each.against == report.sides[0].name)
    return ImprovementAttributes(
        accuracy=adapter - base,
        confidence=sure[1].confidence - sure[0].confidence if sure[0] and sure[1] else None,
        # The share of the base's errors that are gone.
        error_reduction=(adapter - base) / (1 - base) if base < 1 else None,
        latency_overhead=next(slower, None),
        significant=compared.p_value <= report.gate.alpha if compared else None,
        p_value=compared.p_value if compared else None,
    )
