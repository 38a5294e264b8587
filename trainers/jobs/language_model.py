"""A stage of a plan becomes a LoRA adapter, in a child process, by whatever method the plan chose.

The run's folder holds the job's files (`trainers/job_folder.py`), the checkpoints while it runs, and in
the end the adapter. A run that was killed resumes from its last checkpoint.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from extractors.dataset.snapshot import read_snapshot
from extractors.values import LearndError
from trainers.batching.tokenise import TrainingSet, check_learnable, tokenised
from trainers.batching.workload import measured
from trainers.job_folder import Progress, run_job
from trainers.jobs.first_attempt import likely_to_fit, memory_rules, planned_attempt
from trainers.jobs.job import ADAPTER, TrainingJob, TrainingResult
from trainers.jobs.shared_steps import Opened, Try, callbacks, fit, keep, metrics
from trainers.models.base_model import base_digest, load_model, load_tokenizer, use_threads
from trainers.planning.hyperparameters import Method
from trainers.recovery.fallbacks import Attempt
from trainers.recovery.guards import Guard, is_begun, with_guards


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
    if base_digest(job.plan.base_model) != job.plan.base_digest:
        raise BaseChanged(f"{job.plan.base_model} has changed since the plan was made; start the cycle again")
    use_threads(job.threads)
    if job.chosen.method == "embedding":
        from trainers.jobs.embedding import train_embedding

        return train_embedding(job, folder, progress)
    return _train_language_model(job, folder, progress)


@dataclass(frozen=True)
class _Opened(Opened):
    """The same of a language model."""

    learned: TrainingSet
    sharing: Any
    """How its batches are computed; see `shared_forward.py`."""


def opened(job: TrainingJob, folder: Path, progress: Progress) -> Opened:
    """What the job's training would begin with, for a short run of it. Raises as `train` does."""
    use_threads(job.threads)
    if job.chosen.method == "embedding":
        from trainers.jobs.embedding import opened_encoder

        return opened_encoder(job, folder, progress)
    return _opened(_first_try(job, folder, progress))


def _train_language_model(job: TrainingJob, folder: Path, progress: Progress) -> TrainingResult:
    """The first attempt that comes to an end."""
    first = _first_try(job, folder, progress)

    def train_once(attempt: Attempt) -> TrainingResult:
        return _trained(replace(first, attempt=attempt))

    return with_guards(first.guard, train_once, checkpoints=first.checkpoints, rules=memory_rules(job))


def _first_try(job: TrainingJob, folder: Path, progress: Progress) -> Try:
    """With the attempt that a killed child was at, or the first one that is likely to fit."""
    planned = planned_attempt(job)
    attempt, why = (planned, "") if is_begun(folder) else likely_to_fit(job)
    guard = Guard(folder, attempt, progress, job.limits, job.spent)
    if attempt != planned:
        guard.tell(f"beginning with {attempt}: {why}")
    return Try(job, guard.state.attempt, guard, folder, progress)


def _opened(this: Try) -> _Opened:
    from trainers.jobs.reporting import Reporter, figures

    plan, kind, progress = this.job.plan, this.job.chosen.data, this.progress
    progress.write("loading", f"base model {plan.base_model}")
    snapshot, tokenizer = read_snapshot(Path(this.job.snapshot)), load_tokenizer(plan.base_model)
    learned = tokenised(tokenizer, kind, snapshot.train, this.hyperparameters)
    validation = tokenised(tokenizer, kind, snapshot.validation, this.hyperparameters)
    check_learnable(learned, this.hyperparameters.max_length)
    _tell(learned, validation, progress)
    reporter = Reporter(progress, partial(figures, this.method))
    trainer, sharing = _trainer(this, tokenizer, learned, validation, reporter)
    workload = measured(learned.features, validation.tokens, this.attempt.micro_batch, widths=sharing.widths)
    if sharing.widths and workload.shared < 1:
        progress.write(
            "loading",
            f"about {1 - workload.shared:.0%} of the batches stay padded: they have too little in common",
        )
    return _Opened(trainer, reporter, this.attempt, workload, learned, sharing)


def _trained(this: Try) -> TrainingResult:
    from trainers.models.lora import save_adapter

    begun = _opened(this)
    trainer, learned = begun.trainer, begun.learned
    loss = fit(this, trainer)
    is_kto = this.method == "kto"
    return TrainingResult(
        adapter=ADAPTER,
        files=keep(this, trainer.state.global_step, partial(save_adapter, trainer.model)),
        rank=trainer.model.peft_config[trainer.model.active_adapter].r,
        metrics=metrics(
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


def _tell(learned: TrainingSet, validation: TrainingSet, progress: Progress) -> None:
    text = f"{len(learned.features)} examples, {learned.label_tokens} tokens to learn of {learned.tokens}"
    if learned.too_long:
        text += f"; {learned.too_long} left out as too long"
    if learned.refusals:
        text += f"; {len(learned.refusals)} left out, the first because {learned.refusals[0]}"
    if not validation.features:
        text += "; no validation examples, so training cannot stop early"
    progress.write("loading", text)


def _trainer(
    this: Try, tokenizer: Any, learned: TrainingSet, validation: TrainingSet, reporter: Any
) -> tuple[Any, Any]:
    """TRL's trainer on the training and the validation set, and how its batches are computed."""
    from datasets import Dataset
    from transformers import set_seed

    from trainers.batching.shared_forward import share_prefixes
    from trainers.methods.arguments import arguments
    from trainers.models.lora import checked, set_lora
    from trainers.models.quantization import train_in_float32

    set_seed(this.hyperparameters.seed)
    job, quantization = this.job, this.attempt.quantization
    base = load_model(job.plan.base_model, device=job.device, dtype=job.dtype, quantization=quantization)
    shared = _shares(this, base)
    validates = bool(validation.features)
    trainer = _made(this.method)(
        arguments(
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
        callbacks=callbacks(this, reporter, validates=validates),
        **_adapter(this, base),
    )
    checked(trainer.model, job.plan.base_model)
    if quantization:
        train_in_float32(trainer.model)
        if job.start_adapter:
            # TRL has rounded it, after copying it for the reference.
            set_lora(trainer.model, Path(job.start_adapter))
    return trainer, share_prefixes(trainer.model.get_base_model(), share=shared)


def _made(method: Method) -> Any:
    """What makes the method's trainer."""
    if method == "sft":
        from trainers.methods.sft import sft_trainer

        return sft_trainer
    from trainers.methods.dpo_kto import dpo_trainer, kto_trainer

    return {"dpo": dpo_trainer, "kto": kto_trainer}[method]


def _shares(this: Try, base: Any) -> bool:
    """Whether batches share what they can: if the plan says so and it is exact."""
    from trainers.batching.shared_forward import is_exact_for

    # TRL switches dropout off for DPO and KTO: their reference would differ by it.
    dropout = this.hyperparameters.lora_dropout if this.method == "sft" else 0.0
    exact, why_not = is_exact_for(base, dropout)
    if this.job.plan.prefix_shared and not exact:
        this.progress.write("loading", f"ordinary padded batches: {why_not}")
    return this.job.plan.prefix_shared and exact


def _adapter(this: Try, base: Any) -> dict[str, Any]:
    """The base with the adapter of the stage before, or with a fresh one that TRL is to make."""
    from trainers.models.lora import load_lora, lora_config

    if this.job.start_adapter:
        return {"model": load_lora(base, Path(this.job.start_adapter), this.job.plan.base_model)}
    config = lora_config(base, this.hyperparameters, this.job.plan.base_model)
    return {"model": base, "peft_config": config}
