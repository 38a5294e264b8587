"""A stage of a plan becomes a LoRA adapter, in a child process, by whatever method the plan chose.

The run's folder holds the job's files (`trainers/job_folder.py`), the checkpoints while it runs, and in
the end the adapter. A run that was killed resumes from its last checkpoint.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from extractors.dataset.snapshot import read_snapshot
from extractors.errors import LearndError
from trainers.batching.tokenise import TrainingSet, check_learnable, tokenise
from trainers.batching.workload import measure_workload
from trainers.job_folder import Progress, run_job
from trainers.jobs.first_attempt import build_memory_rules, choose_first_attempt, plan_attempt
from trainers.jobs.job import ADAPTER, TrainingJob, TrainingResult
from trainers.jobs.shared_steps import (
    PreparedTraining,
    TrainingRun,
    build_callbacks,
    collect_metrics,
    fit,
    save_with_curves,
)
from trainers.models.base_model import compute_base_digest, load_model, load_tokenizer, use_threads
from trainers.planning.hyperparameters import Method
from trainers.recovery.fallbacks import Attempt
from trainers.recovery.guards import RunGuard, is_begun, train_with_recovery


class BaseChanged(LearndError):
    """The base model is not the one that the plan was made for."""


def run(folder: Path) -> None:
    """Do the TrainingJob in `folder`: `learnd work train FOLDER`."""
    run_job(folder, TrainingJob, train)


def train(job: TrainingJob, folder: Path, progress: Progress) -> TrainingResult:
    """Train the job's stage on its snapshot, into `folder`.

    Raises LearndError: BaseChanged, NothingToLearn, LoraMatchesNothing, AdapterUnusable,
    TrainingDiverged, OutOfMemory, BaseModelUnusable, QuantizationUnavailable, SnapshotDamaged.
    """
    if compute_base_digest(job.plan.base_model) != job.plan.base_digest:
        raise BaseChanged(f"{job.plan.base_model} has changed since the plan was made; start the cycle again")
    use_threads(job.threads)
    if job.chosen.method == "embedding":
        from trainers.jobs.embedding import train_embedding

        return train_embedding(job, folder, progress)
    return _train_language_model(job, folder, progress)


@dataclass(frozen=True)
class _PreparedLanguageModel(PreparedTraining):
    """The same of a language model."""

    learned: TrainingSet
    sharing: Any
    """How its batches are computed; see `shared_forward.py`."""


def prepare_training(job: TrainingJob, folder: Path, progress: Progress) -> PreparedTraining:
    """What the job's training would begin with, for a short run of it. Raises as `train` does."""
    use_threads(job.threads)
    if job.chosen.method == "embedding":
        from trainers.jobs.embedding import prepare_embedding

        return prepare_embedding(job, folder, progress)
    return _prepare(_begin_run(job, folder, progress))


def _train_language_model(job: TrainingJob, folder: Path, progress: Progress) -> TrainingResult:
    """The first attempt that comes to an end."""
    first = _begin_run(job, folder, progress)

    def train_once(attempt: Attempt) -> TrainingResult:
        return _train_attempt(replace(first, attempt=attempt))

    return train_with_recovery(
        first.guard, train_once, checkpoints=first.checkpoints, rules=build_memory_rules(job)
    )


def _begin_run(job: TrainingJob, folder: Path, progress: Progress) -> TrainingRun:
    """With the attempt that a killed child was at, or the first one that is likely to fit."""
    planned = plan_attempt(job)
    attempt, why = (planned, "") if is_begun(folder) else choose_first_attempt(job)
    guard = RunGuard(folder, attempt, progress, job.limits, job.spent)
    if attempt != planned:
        guard.tell(f"beginning with {attempt}: {why}")
    return TrainingRun(job, guard.state.attempt, guard, folder, progress)


def _prepare(this: TrainingRun) -> _PreparedLanguageModel:
    from trainers.jobs.reporting import ProgressReporter, read_figures

    plan, kind, progress = this.job.plan, this.job.chosen.data, this.progress
    progress.write("loading", f"base model {plan.base_model}")
    snapshot, tokenizer = read_snapshot(Path(this.job.snapshot)), load_tokenizer(plan.base_model)
    learned = tokenise(tokenizer, kind, snapshot.train, this.hyperparameters)
    validation = tokenise(tokenizer, kind, snapshot.validation, this.hyperparameters)
    check_learnable(learned, this.hyperparameters.max_length)
    _report_data(learned, validation, progress)
    reporter = ProgressReporter(progress, partial(read_figures, this.method))
    trainer, sharing = _build_trainer(this, tokenizer, learned, validation, reporter)
    workload = measure_workload(
        learned.features, validation.tokens, this.attempt.micro_batch, widths=sharing.widths
    )
    if sharing.widths and workload.shared < 1:
        progress.write(
            "loading",
            f"about {1 - workload.shared:.0%} of the batches stay padded: they have too little in common",
        )
    return _PreparedLanguageModel(trainer, reporter, this.attempt, workload, learned, sharing)


def _train_attempt(this: TrainingRun) -> TrainingResult:
    from trainers.models.lora import save_adapter

    begun = _prepare(this)
    trainer, learned = begun.trainer, begun.learned
    loss = fit(this, trainer)
    is_kto = this.method == "kto"
    return TrainingResult(
        adapter=ADAPTER,
        files=save_with_curves(this, trainer.state.global_step, partial(save_adapter, trainer.model)),
        rank=trainer.model.peft_config[trainer.model.active_adapter].r,
        metrics=collect_metrics(
            this,
            begun,
            loss,
            too_long=learned.too_long,
            refused=len(learned.refusals),
            label_tokens=learned.label_tokens,
            prefix_shared=begun.sharing.packed > 0,
            batches_shared=begun.sharing.packed,
            batches_padded=begun.sharing.padded,
            desirable_weight=trainer.args.desirable_weight if is_kto else None,
            undesirable_weight=trainer.args.undesirable_weight if is_kto else None,
        ),
    )


def _report_data(learned: TrainingSet, validation: TrainingSet, progress: Progress) -> None:
    text = f"{len(learned.features)} examples, {learned.label_tokens} tokens to learn of {learned.tokens}"
    if learned.too_long:
        text += f"; {learned.too_long} left out as too long"
    if learned.refusals:
        text += f"; {len(learned.refusals)} left out, the first because {learned.refusals[0]}"
    if not validation.features:
        text += "; no validation examples, so training cannot stop early"
    progress.write("loading", text)


def _build_trainer(
    this: TrainingRun, tokenizer: Any, learned: TrainingSet, validation: TrainingSet, reporter: Any
) -> tuple[Any, Any]:
    """TRL's trainer on the training and the validation set, and how its batches are computed."""
    from datasets import Dataset
    from transformers import set_seed

    from trainers.batching.shared_forward import share_prefixes
    from trainers.methods.arguments import build_arguments
    from trainers.models.lora import check_lora, set_lora
    from trainers.models.quantization import cast_trainable_to_float32

    set_seed(this.hyperparameters.seed)
    job, quantization = this.job, this.attempt.quantization
    base = load_model(job.plan.base_model, device=job.device, dtype=job.dtype, quantization=quantization)
    shared = _can_share(this, base)
    validates = bool(validation.features)
    trainer = _choose_builder(this.method)(
        build_arguments(
            base,
            this.hyperparameters,
            this.checkpoints,
            examples=len(learned.features),
            validates=validates,
            checkpointing=this.attempt.checkpointing,
        ),
        this.hyperparameters,
        train_dataset=Dataset.from_list(list(learned.features)),
        eval_dataset=Dataset.from_list(list(validation.features)) if validates else None,
        processing_class=tokenizer,
        callbacks=build_callbacks(this, reporter, validates=validates),
        **_add_adapter(this, base),
    )
    check_lora(trainer.model, job.plan.base_model)
    if quantization:
        cast_trainable_to_float32(trainer.model)
        if job.start_adapter:
            # TRL has rounded it, after copying it for the reference.
            set_lora(trainer.model, Path(job.start_adapter))
    return trainer, share_prefixes(trainer.model.get_base_model(), share=shared)


def _choose_builder(method: Method) -> Any:
    """What makes the method's trainer."""
    if method == "sft":
        from trainers.methods.sft import build_sft_trainer

        return build_sft_trainer
    from trainers.methods.dpo_kto import build_dpo_trainer, build_kto_trainer

    return {"dpo": build_dpo_trainer, "kto": build_kto_trainer}[method]


def _can_share(this: TrainingRun, base: Any) -> bool:
    """Whether batches share what they can: if the plan says so and it is exact."""
    from trainers.batching.shared_forward import find_inexactness

    # TRL switches dropout off for DPO and KTO: their reference would differ by it.
    dropout = this.hyperparameters.lora_dropout if this.method == "sft" else 0.0
    inexactness = find_inexactness(base, dropout)
    if this.job.plan.prefix_shared and inexactness is not None:
        this.progress.write("loading", f"ordinary padded batches: {inexactness}")
    return this.job.plan.prefix_shared and inexactness is None


def _add_adapter(this: TrainingRun, base: Any) -> dict[str, Any]:
    """The base with the adapter of the stage before, or with a fresh one that TRL is to make."""
    from trainers.models.lora import build_lora_config, load_lora

    if this.job.start_adapter:
        return {"model": load_lora(base, Path(this.job.start_adapter), this.job.plan.base_model)}
    config = build_lora_config(base, this.hyperparameters, this.job.plan.base_model)
    return {"model": base, "peft_config": config}
