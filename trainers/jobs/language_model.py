"""Training a language model by SFT, DPO or KTO: tokenised examples, TRL's trainer, and a LoRA adapter."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import set_seed

from extractors.dataset.snapshot import read_snapshot
from trainers.batching.shared_forward import find_inexactness, share_prefixes
from trainers.batching.tokenise import TrainingSet, check_learnable, tokenise
from trainers.batching.workload import measure_workload
from trainers.job_folder import Progress
from trainers.jobs.first_attempt import build_memory_rules, choose_first_attempt, plan_attempt
from trainers.jobs.job import ADAPTER, TrainingJob, TrainingResult
from trainers.jobs.legs import Leg, LegResult
from trainers.jobs.replay_set import tokenise_replay
from trainers.jobs.reporting import ProgressReporter, read_figures
from trainers.jobs.shared_steps import (
    PreparedTraining,
    TrainingRun,
    build_callbacks,
    build_leg_result,
    collect_metrics,
    fit,
    save_with_curves,
    schedule_leg,
)
from trainers.methods.arguments import build_arguments
from trainers.methods.dpo_kto import build_dpo_trainer, build_kto_trainer
from trainers.methods.sft import build_sft_trainer
from trainers.models.base_model import load_model, load_tokenizer
from trainers.models.lora import build_lora_config, check_lora, load_lora, save_adapter, set_lora
from trainers.models.quantization import cast_trainable_to_float32
from trainers.models.shared_base import borrow_base
from trainers.planning.hyperparameters import Method
from trainers.recovery.fallbacks import Attempt
from trainers.recovery.guards import RunGuard, is_begun, train_with_recovery
from trainers.recovery.preference_limits import LimitPreferences, PreferenceWatch, measure_chosen_tokens

TRAINER_BUILDERS: Mapping[Method, Callable[..., Any]] = {
    "sft": build_sft_trainer,
    "dpo": build_dpo_trainer,
    "kto": build_kto_trainer,
}


@dataclass(frozen=True)
class _PreparedLanguageModel(PreparedTraining):
    """A prepared training with its examples and the way in which its batches are computed."""

    learned: TrainingSet
    """The target's examples and those that the base wrote."""
    sharing: Any
    """A `PrefixSharing`; see `shared_forward.py`."""


def train_language_model(job: TrainingJob, folder: Path, progress: Progress) -> TrainingResult:
    """Train the job's stage into `folder`: the first attempt that finishes. Raises as `train` does."""
    first = _begin_run(job, folder, progress)

    def train_once(attempt: Attempt) -> TrainingResult:
        return _train_attempt(replace(first, attempt=attempt))

    return train_with_recovery(
        first.guard, train_once, checkpoints=first.checkpoints, rules=build_memory_rules(job)
    )


def train_language_model_leg(
    job: TrainingJob, leg: Leg, folder: Path, progress: Progress, base: Any
) -> LegResult:
    """Train one leg of the job's stage on the loaded `base`, which is given back as it was.

    The weights at the leg's end lie in a checkpoint in `folder`; after a last leg, the adapter. Raises as
    `train` does.
    """
    first = replace(_begin_run(job, folder, progress, base), leg=leg)

    def train_once(attempt: Attempt) -> LegResult:
        run = replace(first, attempt=attempt)
        with borrow_base(base):
            prepared = _prepare(run, base)
            loss = fit(prepared.trainer, run)
            result = _build_result(run, prepared, loss) if leg.is_last else None
            return build_leg_result(run, leg, prepared.planned, result)

    # All contenders share the base, so that none may have it in other weights.
    rules = build_memory_rules(job).model_copy(update={"may_quantize": False})
    return train_with_recovery(first.guard, train_once, checkpoints=first.checkpoints, rules=rules)


def prepare_language_model(job: TrainingJob, folder: Path, progress: Progress) -> PreparedTraining:
    """Prepare the first attempt of the job's training. Raises as `train` does."""
    return _prepare(_begin_run(job, folder, progress))


def _begin_run(job: TrainingJob, folder: Path, progress: Progress, base: Any = None) -> TrainingRun:
    """Begin with the attempt of a killed child, or with the first one that is likely to fit."""
    planned = plan_attempt(job)
    attempt, why = (planned, "") if is_begun(folder) else choose_first_attempt(job, base)
    guard = RunGuard(folder, attempt, progress, job.limits, job.spent)
    if attempt != planned:
        guard.report(f"beginning with {attempt}: {why}")
    return TrainingRun(job, guard.state.attempt, guard, folder, progress)


def _prepare(run: TrainingRun, base: Any = None) -> _PreparedLanguageModel:
    """Prepare the run's training, on `base` where one is loaded already."""
    plan, kind, progress = run.job.plan, run.job.current_stage.data, run.progress
    if base is None:
        progress.write("loading", f"base model {plan.base_model}")
    snapshot, tokenizer = read_snapshot(Path(run.job.snapshot)), load_tokenizer(plan.base_model)
    learned = tokenise(tokenizer, kind, snapshot.train, run.hyperparameters)
    validation = tokenise(tokenizer, kind, snapshot.validation, run.hyperparameters)
    check_learnable(learned, run.hyperparameters.max_length)
    replay = tokenise_replay(tokenizer, run.job)
    _report_examples(learned, validation, replay, progress)
    learned = learned.model_copy(update={"features": (*learned.features, *replay.features)})
    reporter = ProgressReporter(progress, partial(read_figures, run.method))
    planned = run.hyperparameters.count_steps(len(learned.features))
    trainer, sharing = _build_trainer(run, base, tokenizer, learned, validation, reporter, planned)
    workload = measure_workload(
        learned.features, validation.tokens, run.attempt.micro_batch, widths=sharing.widths
    )
    if sharing.widths and workload.shared < 1:
        progress.write(
            "loading",
            f"about {1 - workload.shared:.0%} of the batches stay padded: they have too little in common",
        )
    mixed = len(replay.features)
    return _PreparedLanguageModel(trainer, reporter, run.attempt, workload, mixed, planned, learned, sharing)


def _train_attempt(run: TrainingRun) -> TrainingResult:
    prepared = _prepare(run)
    return _build_result(run, prepared, fit(prepared.trainer, run))


def _build_result(run: TrainingRun, prepared: _PreparedLanguageModel, loss: float) -> TrainingResult:
    """Write the adapter of a finished training, and return the result."""
    trainer, learned, sharing = prepared.trainer, prepared.learned, prepared.sharing
    save = partial(save_adapter, trainer.model)
    is_kto = run.method == "kto"
    return TrainingResult(
        adapter=ADAPTER,
        files=save_with_curves(run.folder, run.progress, trainer.state.global_step, save),
        rank=trainer.model.peft_config[trainer.model.active_adapter].r,
        metrics=collect_metrics(
            run,
            prepared,
            loss,
            too_long=learned.too_long,
            refused=len(learned.refusals),
            label_tokens=learned.label_tokens,
            prefix_shared=sharing.packed > 0,
            batches_shared=sharing.packed,
            batches_padded=sharing.padded,
            desirable_weight=trainer.args.desirable_weight if is_kto else None,
            undesirable_weight=trainer.args.undesirable_weight if is_kto else None,
        ),
    )


def _report_examples(
    learned: TrainingSet, validation: TrainingSet, replay: TrainingSet, progress: Progress
) -> None:
    text = f"{len(learned.features)} examples, {learned.label_tokens} tokens to learn of {learned.tokens}"
    if learned.too_long:
        text += f"; {learned.too_long} left out as too long"
    if learned.refusals:
        text += f"; {len(learned.refusals)} left out, the first because {learned.refusals[0]}"
    if validation.refusals:
        text += f"; {len(validation.refusals)} validation examples left out: {validation.refusals[0]}"
    if replay.features:
        text += f"; mixed in: {len(replay.features)} that the base wrote itself"
    if not validation.features:
        text += "; no validation examples, so training cannot stop early"
    progress.write("loading", text)


def _build_trainer(
    run: TrainingRun,
    base: Any,
    tokenizer: Any,
    learned: TrainingSet,
    validation: TrainingSet,
    reporter: Any,
    planned: int,
) -> tuple[Any, Any]:
    """Build TRL's trainer on the two sets, for `planned` steps; return it with the `PrefixSharing` of its
    batches.
    """
    set_seed(run.hyperparameters.seed)
    job, attempt = run.job, run.attempt
    if base is None:
        base = load_model(
            job.plan.base_model, device=job.device, dtype=job.dtype, quantization=attempt.quantization
        )
    share = _can_share(run, base)
    validates = bool(validation.features)
    arguments = build_arguments(
        base,
        run.hyperparameters,
        run.checkpoints,
        examples=len(learned.features),
        validates=validates,
        checkpointing=attempt.checkpointing,
    )
    trainer = TRAINER_BUILDERS[run.method](
        schedule_leg(run, arguments, planned),
        run.hyperparameters,
        train_dataset=Dataset.from_list(list(learned.features)),
        eval_dataset=Dataset.from_list(list(validation.features)) if validates else None,
        processing_class=tokenizer,
        callbacks=[
            *build_callbacks(run, reporter, validates=validates),
            *_limit_preferences(run, learned),
        ],
        **_add_adapter(run, base),
    )
    _finish_adapter(trainer.model, run)
    return trainer, share_prefixes(trainer.model.get_base_model(), share=share)


def _limit_preferences(run: TrainingRun, learned: TrainingSet) -> list[LimitPreferences]:
    """Return the callback that bounds a training on preferences; none for other methods."""
    if run.method == "sft":
        return []
    watch = PreferenceWatch(run.hyperparameters, measure_chosen_tokens(learned.features))
    return [LimitPreferences(run.guard, watch)]


def _finish_adapter(model: Any, run: TrainingRun) -> None:
    """Check the adapter that TRL prepared, and restore its precision on a base in 4 bits."""
    check_lora(model, run.job.plan.base_model)
    if run.attempt.quantization:
        cast_trainable_to_float32(model)
        if run.job.start_adapter:
            # TRL has rounded it, after copying it for the reference.
            set_lora(model, Path(run.job.start_adapter))


def _can_share(run: TrainingRun, base: Any) -> bool:
    """Return True if batches may be packed: the plan allows it, and it is exact for this model."""
    # TRL switches dropout off for DPO and KTO: their reference would differ by it.
    dropout = run.hyperparameters.lora_dropout if run.method == "sft" else 0.0
    inexactness = find_inexactness(base, dropout)
    if run.job.plan.prefix_shared and inexactness is not None:
        run.progress.write("loading", f"ordinary padded batches: {inexactness}")
    return run.job.plan.prefix_shared and inexactness is None


def _add_adapter(run: TrainingRun, base: Any) -> dict[str, Any]:
    """Return TRL's arguments for the base with the adapter of the stage before, or with a new one."""
    if run.job.start_adapter:
        return {"model": load_lora(base, Path(run.job.start_adapter), run.job.plan.base_model)}
    config = build_lora_config(base, run.hyperparameters, run.job.plan.base_model)
    return {"model": base, "peft_config": config}
