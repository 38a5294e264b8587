"""Builds the EXPERIMENT and EVALUATION spans of a run."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from daemon.publishing.run import FinishedRun
from daemon.publishing.span_attributes import (
    ContenderAttributes,
    DataAttributes,
    EvaluationAttributes,
    EvaluationMetrics,
    EvaluationSpan,
    ExperimentAttributes,
    ExperimentSpan,
    FineTuningMetrics,
    GeneralAbilityAttributes,
    ImprovementAttributes,
    OutputAttributes,
    ParameterAttributes,
    RaceAttributes,
    SideMetrics,
)
from daemon.views.run_files import RACE
from evaluation.race_report import RaceReport
from evaluation.report import GeneralAbility, PairedComparison, Report, Side
from extractors.dataset.snapshot import Snapshot
from registry.cycles import Cycle, CycleState, ReviewedCounts, StageResult
from trainers.planning.plan import Plan, TrainingStage

BACKENDS = {"embedding": "sentence-transformers"}
"""The library that trains a method, where it is not `BACKEND`."""
BACKEND = "trl"


def build_experiment_span(run: FinishedRun) -> ExperimentSpan:
    """Build the span of the fine-tuning. Raises LookupError where the run that trained lacks its plan.

    A second look has one as well, so that each run is found by its id and its evaluation has a parent. It
    has the parameters of the training, but neither data nor metrics: those are the training run's, and a
    sum over all runs should count each training once.
    """
    plan = run.trained.plan
    if plan is None:
        raise LookupError(f"{run.trained.id} trained and lacks its plan; the store was edited by hand")
    is_second_look = run.cycle.plan is None
    started_at, ended_at = (
        (run.cycle.started_at, run.cycle.updated_at) if is_second_look else run.find_times("train-", RACE)
    )
    stages = list(_find_stages(run.trained, plan))
    trained_stages = [stage for stage, _ in stages] or plan.stages
    general = run.cycle.report.general if run.cycle.report else None
    return ExperimentSpan(
        started_at=started_at,
        ended_at=ended_at,
        error=run.cycle.reason if run.cycle.state is CycleState.FAILED else None,
        experiment=ExperimentAttributes(run_id=run.cycle.id, agent_type=run.target.agent),
        params=_build_parameters(plan, trained_stages),
        data=DataAttributes() if is_second_look else _build_data(run, plan, trained_stages),
        metrics=FineTuningMetrics()
        if is_second_look or not stages
        else _build_training_metrics(run, *stages[-1]),
        race=_build_race(run.race) if run.race else None,
        general_ability=_build_general_ability(general) if general else None,
        output=OutputAttributes(adapter_path=run.adapter_path),
    )


def _find_stages(trained: Cycle, plan: Plan) -> Iterator[tuple[TrainingStage, StageResult]]:
    """Yield the stages that made the candidate, with their results; of several seeds, the median run's."""
    seeds = trained.report.seeds if trained.report else None
    median = seeds.median if seeds else 0
    results = [result for result in trained.training if result.run == median]
    for stage, result in zip(plan.stages, results, strict=False):
        if not result.left_out:
            yield stage, result


def _build_parameters(plan: Plan, stages: Sequence[TrainingStage]) -> ParameterAttributes:
    """Build the parameters: the methods of all stages, and the hyperparameters of the last one."""
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
    """Build the counts of reviewed traffic, and of the examples that are trained and validated on.

    A corrected answer counts as rejected: people did not accept it as it was.
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
    """Count the synthetic examples of these kinds; an operator has approved each one."""
    return sum(
        example.origin == "synthetic"
        for side in (snapshot.train, snapshot.validation)
        for kind in kinds
        for example in getattr(side, kind)
    )


def _build_training_metrics(run: FinishedRun, stage: TrainingStage, result: StageResult) -> FineTuningMetrics:
    """Build the metrics of the last stage.

    Samples are the examples that fit. The figures of the validation are those of the step that was kept.
    """
    figures, counts = result.figures, run.cycle.counts
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


def _build_race(race: RaceReport) -> RaceAttributes:
    return RaceAttributes(
        **race.model_dump(include=RaceAttributes.model_fields.keys() - {"contenders"}),
        cost=race.cost,
        contenders=tuple(
            ContenderAttributes(
                **each.model_dump(include={"name", "steps", "seconds", "effect", "p_value"}),
                score=each.scores[-1].mean if each.scores else None,
                left=each.left or None,
            )
            for each in race.contenders
        ),
    )


def _build_general_ability(general: GeneralAbility) -> GeneralAbilityAttributes:
    return GeneralAbilityAttributes(
        **general.model_dump(include={"items", "tokens", "change"}),
        **general.candidate.model_dump(include={"divergence", "agreement"}),
    )


def build_evaluation_span(run: FinishedRun) -> EvaluationSpan | None:
    """Build the span that compares candidate and base; None where the run was not judged."""
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
    """Find the comparison of candidate and base by accuracy; None where accuracy does not gate."""
    base = report.sides[0].name
    found = (each for each in report.comparisons if (each.against, each.metric) == (base, "accuracy"))
    return next(found, None)


def _find_accuracies(report: Report) -> tuple[float, float]:
    """Return the accuracies of base and candidate, weighted where the report weights its items."""
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
    """Compare the candidate with the base, as the metrics do; the verdict compares with the active version.

    The p-value is that of the accuracy; there is none where accuracy does not gate.
    """
    if not report.gold_size:
        return ImprovementAttributes()
    before, after = report.sides[0].confidence, report.candidate.confidence
    base, adapter = _find_accuracies(report)
    compared = _find_accuracy_comparison(report)
    slower = (each.ratio - 1 for each in report.overheads if each.against == report.sides[0].name)
    return ImprovementAttributes(
        accuracy=adapter - base,
        confidence=after.confidence - before.confidence if before and after else None,
        # The share of the base's errors that are gone.
        error_reduction=(adapter - base) / (1 - base) if base < 1 else None,
        latency_overhead=next(slower, None),
        significant=compared.p_value <= report.gate.alpha if compared else None,
        p_value=compared.p_value if compared else None,
    )
