"""From a snapshot to a registered version: the plan, and its training stage by stage."""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from daemon.cycle.replay import find_replay_share
from daemon.data.ingest import explain_missing_scores
from daemon.data.learned import collect_learned
from daemon.runtime.context import TargetContext
from daemon.runtime.paths import adapter_folder, adapter_path, replay_folder
from daemon.runtime.version import VERSION
from daemon.runtime.work import Work
from daemon.settings.servers import TrainingSettings
from daemon.settings.target import TargetSettings
from daemon.views.run_files import RACE
from evaluation.jobs.job import AdapterSide
from evaluation.jobs.readiness import ReadinessJob
from evaluation.jobs.seeds import SeedsJob
from evaluation.race.job import RaceJob, RaceResult
from evaluation.race_report import RaceReport
from evaluation.report import SeedRuns
from evaluation.validation_side import can_validate, count_sessions, find_learned_prompts
from extractors.dataset.learned_traffic import LearnedTraffic
from extractors.dataset.snapshot import Snapshot
from extractors.errors import LearndError
from registry.adapter_files import share_adapter
from registry.cycles import Cycle, CycleState, StageResult, TrainingFigures
from registry.versions import Candidate, Version
from trainers.jobs.job import TrainingJob, TrainingResult
from trainers.models.base_model import compute_base_digest, measure_weight_bytes
from trainers.planning.apply_rules import (
    BaseModelInfo,
    LiveVersion,
    MethodChoice,
    MethodSettings,
    TrainingPreferences,
    choose_method,
)
from trainers.planning.method_rules import Readiness
from trainers.planning.plan import Plan
from trainers.recovery.checkpoints import remove_checkpoints

SEEDS = "seeds"
"""Folder of the job that finds the median run."""
RACES_REMEMBERED = 10
"""Number of a target's last cycles whose races order the challengers of the next."""


def describe_base(target: TargetSettings) -> BaseModelInfo:
    """Return name, digest and size of the target's base model as it is now. Raises BaseModelUnusable."""
    return BaseModelInfo(
        name=target.base_model,
        digest=compute_base_digest(target.base_model),
        bytes=measure_weight_bytes(target.base_model),
    )


def choose_plan(
    context: TargetContext, base: BaseModelInfo, snapshot: Snapshot, written: Path, folder: Path
) -> MethodChoice:
    """Choose method and hyperparameters for `snapshot`, whose files are in `written`.

    Where the rules ask how the live model answers, that is measured in `folder`. Raises JobFailed,
    Interrupted, OverridesInvalid.
    """
    active = context.store.find_active_version(context.target.key)
    # A version of another base would be no judge of this one, and replicas may load no such rank any more.
    fits = active and active.rank <= context.settings.training.max_lora_rank
    live = active if active and fits and active.base_digest == base.digest else None
    learned = collect_learned(context, live) if live else LearnedTraffic()
    left_out = find_learned_prompts(snapshot, learned)
    new_sessions = count_sessions(snapshot, left_out) if learned.is_complete else None
    return choose_method(
        snapshot,
        build_method_settings(context, base),
        live=_describe_live(context.data_dir, live, new_sessions) if live else None,
        measure_live=lambda: _measure_readiness(context, base.name, written, folder, live, left_out),
        sessions=count_sessions(snapshot),
        no_scores=explain_missing_scores(context.target),
        found_before=average_gains(list_races(context)),
    )


def list_races(context: TargetContext) -> tuple[RaceReport, ...]:
    """Return the reports of the target's last races, newest first."""
    listed = context.store.cycles(
        context.target.key, limit=RACES_REMEMBERED, state=CycleState.DONE, trains=True
    )
    reports = [context.store.cycle(cycle.id).report for cycle in listed]
    return tuple(report.race for report in reports if report and report.race)


def average_gains(races: Iterable[RaceReport]) -> dict[str, float]:
    """Return the mean gain over the default of each contender, by its name.

    Only items count that no earlier race had scored, each once.
    """
    gains, items = defaultdict[str, float](float), Counter[str]()
    for race in races:
        for contender in race.contenders:
            if contender.fresh_effect is not None:
                gains[contender.name] += contender.fresh_effect * race.fresh_items
                items[contender.name] += race.fresh_items
    return {name: gains[name] / items[name] for name in items}


def build_method_settings(context: TargetContext, base: BaseModelInfo) -> MethodSettings:
    """Return what the choice of a method depends on, apart from the data."""
    target, training = context.target, context.settings.training
    preferences = TrainingPreferences(
        preset=target.preset,
        overrides=target.hyperparameters,
        max_lora_rank=training.max_lora_rank,
        quantization="nf4" if training.quantization == "always" else None,
        prefix_shared=training.share_prefixes,
        limits=training.limits,
        race=target.race,
        race_cost=target.race_cost,
        replay_share=find_replay_share(target),
    )
    return MethodSettings(task=target.task, thresholds=target.thresholds, base=base, preferences=preferences)


def _describe_live(data_dir: Path, version: Version, new_sessions: int | None) -> LiveVersion:
    config = json.loads((adapter_folder(data_dir, version) / "adapter_config.json").read_text("utf-8"))
    return LiveVersion(
        version=version.id,
        lora_rank=config["r"],
        lora_alpha=config["lora_alpha"],
        new_sessions=new_sessions,
    )


def _measure_readiness(
    context: TargetContext,
    base_model: str,
    snapshot: Path,
    folder: Path,
    version: Version | None,
    left_out: Collection[str],
) -> Readiness:
    """Measure how the base, or a version, answers the pairs' prompts, without those that are `left_out`."""
    target, training = context.target, context.settings.training
    job = ReadinessJob(
        snapshot=str(snapshot),
        base_model=base_model,
        adapter=build_side(context.data_dir, version),
        left_out=tuple(sorted(left_out)),
        task=target.task,
        output_space=target.output_space,
        max_new_tokens=target.max_new_tokens,
        device=training.device,
        dtype=training.dtype,
        threads=training.threads,
    )
    return context.run_job(Work.MEASURE, folder, job, Readiness)


def build_side(data_dir: Path, version: Version | None) -> AdapterSide | None:
    """Return the version as a side of an evaluation; None, the base model, for None."""
    if version is None:
        return None
    return AdapterSide(name=version.id, path=str(adapter_folder(data_dir, version)))


def find_start_adapter(context: TargetContext, plan: Plan) -> Path | None:
    """Return the folder of the adapter that the plan's first stage continues from, if there is one."""
    if plan.start_version is None:
        return None
    return adapter_folder(context.data_dir, context.store.version(plan.start_version))


class TrainedOnUnknown(LearndError):
    """The examples that a version was trained on are not known any more."""


def find_left_out(context: TargetContext, plan: Plan, starts: Iterable[str]) -> tuple[str, ...]:
    """Return the normalised prompts that the plan's race leaves out: what the versions `starts`, which
    contenders go on from, were trained on. Raises TrainedOnUnknown, SnapshotDamaged.
    """
    snapshot, left_out = context.snapshot(plan.snapshot_id), set[str]()
    for start in sorted(starts):
        learned = collect_learned(context, context.store.version(start))
        if not learned.is_complete:
            raise TrainedOnUnknown(
                f"what {start} was trained on is unknown since its plan was made; start the cycle again"
            )
        left_out |= find_learned_prompts(snapshot, learned)
    return tuple(sorted(left_out))


class _PlanRun(NamedTuple):
    """One training of the whole plan."""

    plan: Plan
    """The plan that was trained; after a race, the winner's."""
    adapter: Path
    result: TrainingResult
    """The result of the last stage that was trained."""
    stages: tuple[StageResult, ...]
    seconds: float
    """Time that it took; of a race, that of all contenders."""


class TrainedCandidate(NamedTuple):
    """The outcome of a cycle's trainings."""

    version: Version
    plan: Plan
    """The plan that was trained; after a race, the winner's."""
    stages: tuple[StageResult, ...]
    """The results of all runs' stages."""


def train_candidate(context: TargetContext, cycle: Cycle, plan: Plan) -> TrainedCandidate:
    """Train the plan, or race its contenders, and register the adapter that comes of it as candidate.

    The plan or the winner's is trained with each of the target's seeds; the candidate is the median run.
    Raises JobFailed, Interrupted.
    """
    runs = [_race(context, cycle, plan) if plan.challengers else _train_run(context, cycle, plan, 0, 0.0)]
    trained = runs[0].plan
    for number in range(1, context.target.seeds):
        spent = sum(run.seconds for run in runs)
        if spent >= context.settings.training.limits.seconds:
            break
        runs.append(_train_run(context, cycle, trained, number, spent))
    chosen = runs[_find_median_run(context, cycle, trained, runs)] if len(runs) > 1 else runs[0]
    version = _register(context, cycle, trained, chosen.result)
    final = adapter_folder(context.data_dir, version)
    if not final.exists():
        final.parent.mkdir(parents=True, exist_ok=True)
        chosen.adapter.replace(final)
    share_adapter(final, version.files)
    return TrainedCandidate(version, trained, tuple(stage for run in runs for stage in run.stages))


def _race(context: TargetContext, cycle: Cycle, plan: Plan) -> _PlanRun:
    """Race the plan's contenders, and return the winner's run."""
    target, training, folder = context.target, context.settings.training, context.run_folder(cycle) / RACE
    contenders = (plan.default, *plan.challengers)
    starts = {each.start_version for each in contenders if each.start_version}
    job = RaceJob(
        plan=plan,
        snapshot=str(context.snapshots / plan.snapshot_id),
        replay=str(replay_folder(context.data_dir, plan.base_digest)),
        start_adapters={
            version: str(adapter_folder(context.data_dir, context.store.version(version)))
            for version in starts
        },
        left_out=find_left_out(context, plan, starts),
        task=target.task,
        output_space=target.output_space,
        metric=target.gate.primary_metric(target.task),
        seen_items=tuple(sorted({item for race in list_races(context) for item in race.item_ids})),
        thresholds=target.thresholds,
        max_new_tokens=target.max_new_tokens,
        limits=training.limits,
        may_quantize=training.quantization != "never",
        device=training.device,
        dtype=training.dtype,
        threads=training.threads,
    )
    found = context.run_job(Work.RACE, folder, job, RaceResult)
    stages = tuple(
        StageResult(method=stage.method, figures=TrainingFigures.from_metrics(each.metrics))
        for stage, each in zip(found.plan.stages, found.stages, strict=True)
    )
    won = found.plan.model_copy(update={"raced": True})
    return _PlanRun(won, folder / found.adapter, found.stages[-1], stages, found.report.seconds)


def _train_run(context: TargetContext, cycle: Cycle, plan: Plan, run: int, spent: float) -> _PlanRun:
    """Train the plan's stages, each in a folder of its own; earlier runs have `spent` so many seconds."""
    run_folder, limits = context.run_folder(cycle), context.settings.training.limits
    suffix = f"-seed-{run}" if run else ""
    stages: list[StageResult] = []
    adapter = find_start_adapter(context, plan)
    result: TrainingResult | None = None
    for number, stage in enumerate(plan.stages):
        so_far = spent + _sum_seconds(stages)
        if number and so_far >= limits.seconds:
            why_not = f"{stage.method} left out: the stage before it has used up the time ({limits})"
            stages.append(StageResult(method=stage.method, run=run, left_out=why_not))
            continue
        folder = run_folder / f"train-{number}{suffix}"
        result = _train_stage(context, plan.shift_seeds(run), number, adapter, folder, so_far)
        figures = TrainingFigures.from_metrics(result.metrics)
        stages.append(StageResult(method=stage.method, run=run, figures=figures))
        adapter = folder / result.adapter
    if result is None or adapter is None:
        raise LookupError("the plan's first stage is always trained")
    return _PlanRun(plan, adapter, result, tuple(stages), _sum_seconds(stages))


def _sum_seconds(stages: Iterable[StageResult]) -> float:
    return sum((stage.figures.seconds or 0.0 for stage in stages), 0.0)


def _find_median_run(context: TargetContext, cycle: Cycle, plan: Plan, runs: Sequence[_PlanRun]) -> int:
    """Return the number of the run that is neither lucky nor unlucky: the median by the primary metric on
    the validation side; the first where nothing there can be scored.
    """
    if not can_validate(context.snapshot(plan.snapshot_id)):
        return 0
    target, training = context.target, context.settings.training
    job = SeedsJob(
        snapshot=str(context.snapshots / plan.snapshot_id),
        base_model=plan.base_model,
        task=target.task,
        output_space=target.output_space,
        runs=tuple(str(run.adapter) for run in runs),
        metric=target.gate.primary_metric(target.task),
        max_new_tokens=target.max_new_tokens,
        device=training.device,
        dtype=training.dtype,
        threads=training.threads,
    )
    return context.run_job(Work.SEEDS, context.run_folder(cycle) / SEEDS, job, SeedRuns).median


def _train_stage(
    context: TargetContext, plan: Plan, number: int, start: Path | None, folder: Path, spent: float
) -> TrainingResult:
    """Train one stage in `folder`; earlier stages have `spent` so many seconds of the cycle's time."""
    snapshot = context.snapshots / plan.snapshot_id
    job = build_training_job(context.settings.training, plan, number, snapshot, start)
    beside = {"spent": spent, "replay": str(replay_folder(context.data_dir, plan.base_digest))}
    result = context.run_job(Work.TRAIN, folder, job.model_copy(update=beside), TrainingResult)
    remove_checkpoints(folder)
    return result


def build_training_job(
    training: TrainingSettings, plan: Plan, number: int, snapshot: Path, start: Path | None
) -> TrainingJob:
    """Return the job that trains stage `number` of the plan on the files of `snapshot`."""
    return TrainingJob(
        plan=plan,
        stage=number,
        snapshot=str(snapshot),
        start_adapter=str(start) if start else None,
        limits=training.limits,
        may_quantize=training.quantization != "never",
        device=training.device,
        dtype=training.dtype,
        threads=training.threads,
    )


def _register(context: TargetContext, cycle: Cycle, plan: Plan, result: TrainingResult) -> Version:
    active = context.store.find_active_version(context.target.key)
    return context.store.add_candidate(
        cycle.id,
        Candidate(
            path=adapter_path(cycle),
            files=result.files,
            base_model=plan.base_model,
            base_digest=plan.base_digest,
            rank=plan.lora_rank,
            snapshot_id=plan.snapshot_id,
            plan_id=plan.id,
            parent_id=active.id if active else None,
            code_version=VERSION,
        ),
        context.clock(),
    )
