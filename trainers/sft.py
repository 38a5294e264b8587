"""Supervised fine-tuning: a snapshot and a plan become a LoRA adapter, in a child process.

The run's folder holds the job's files (`trainers/child.py`), the checkpoints while it runs, and in
the end the adapter. A run that was killed resumes from its last checkpoint.
"""

import resource
import shutil
import time
from pathlib import Path
from typing import Any

from extractors.snapshot import read_snapshot
from extractors.values import LearndError, Value
from trainers.base_model import Device, Dtype, base_digest, load_model, load_tokenizer, use_threads
from trainers.child import Progress, run_job
from trainers.plan import Hyperparameters, Plan
from trainers.training_set import TrainingSet, check_learnable, tokenised

ADAPTER = "adapter"
CHECKPOINTS = "checkpoints"
MOST_LOG_LINES = 500
"""Progress lines of a long training; a short one has a line for each step."""


class BaseChanged(LearndError):
    """The base model is not the one that the plan was made for."""


class OutOfMemory(LearndError):
    """The device has too little memory for this plan."""


class TrainingJob(Value):
    """What a training child is asked to do."""

    plan: Plan
    snapshot: str
    """Folder of the snapshot."""
    device: Device = "auto"
    dtype: Dtype = "auto"
    threads: int | None = None
    """CPU threads; None takes what torch would."""


class ValidationLoss(Value):
    """Mean loss on the validation split after so many steps, in nats a token."""

    step: int
    loss: float


class TrainingMetrics(Value):
    """How the training went."""

    examples: int
    too_long: int
    """Training examples left out because they exceed `max_length`."""
    refused: int
    """Training examples left out because the chat template cannot express them."""
    tokens: int
    """Of all training examples, once."""
    label_tokens: int
    """Those of them that are learned."""
    steps: int
    train_loss: float
    """Mean over the steps since the last start, in nats a token."""
    validation_losses: tuple[ValidationLoss, ...]
    best_step: int
    """The step whose weights were kept."""
    prefix_shared: bool
    device: str
    dtype: str
    seconds: float
    """Since the last start."""
    peak_memory_bytes: int
    """Of the GPU where one is used, else of the process."""


class TrainingResult(Value):
    """What a training child leaves."""

    adapter: str
    """Folder of the adapter, relative to the run's folder."""
    files: dict[str, str]
    """File name in it to SHA-256."""
    rank: int
    metrics: TrainingMetrics


def run(folder: Path) -> None:
    """Do the TrainingJob in `folder`: `learnd work train FOLDER`."""
    run_job(folder, TrainingJob, train_sft)


def train_sft(job: TrainingJob, folder: Path, progress: Progress) -> TrainingResult:
    """Train an adapter from the base on the job's snapshot, into `folder`.

    Raises LearndError: BaseChanged, NothingToLearn, LoraMatchesNothing,
    TrainingDiverged, OutOfMemory, BaseModelUnusable, SnapshotDamaged.
    """
    import torch

    started = time.monotonic()
    plan, hyperparameters = job.plan, job.plan.hyperparameters
    progress.write("loading", f"base model {plan.base_model}")
    if base_digest(plan.base_model) != plan.base_digest:
        raise BaseChanged(f"{plan.base_model} has changed since the plan was made; start the cycle again")
    use_threads(job.threads)
    snapshot, tokenizer = read_snapshot(Path(job.snapshot)), load_tokenizer(plan.base_model)
    train = tokenised(tokenizer, snapshot.train, hyperparameters.max_length)
    validation = tokenised(tokenizer, snapshot.validation, hyperparameters.max_length)
    check_learnable(train, hyperparameters.max_length)
    _tell(train, validation, progress)
    try:
        trainer, shared = _trainer(job, tokenizer, train, validation, folder / CHECKPOINTS, progress)
        loss = _train(trainer, folder / CHECKPOINTS, progress)
    except torch.OutOfMemoryError as full:
        raise OutOfMemory(
            f"{full}; lower `batch_size` (raise `gradient_accumulation`) or `max_length` in its settings"
        ) from full
    progress.write("saving")
    files = _save(trainer.model, folder)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return TrainingResult(
        adapter=ADAPTER,
        files=files,
        rank=hyperparameters.lora_rank,
        metrics=_metrics(trainer, train, loss, shared=shared, seconds=time.monotonic() - started),
    )


def _metrics(
    trainer: Any, train: TrainingSet, loss: float, *, shared: bool, seconds: float
) -> TrainingMetrics:
    state, model = trainer.state, trainer.model
    return TrainingMetrics(
        examples=len(train.features),
        too_long=train.too_long,
        refused=len(train.refusals),
        tokens=train.tokens,
        label_tokens=train.label_tokens,
        steps=state.global_step,
        train_loss=loss,
        validation_losses=tuple(
            ValidationLoss(step=entry["step"], loss=entry["eval_loss"])
            for entry in state.log_history
            if "eval_loss" in entry
        ),
        best_step=state.best_global_step or state.global_step,
        prefix_shared=shared,
        device=model.device.type,
        dtype=str(model.dtype).removeprefix("torch."),
        seconds=seconds,
        peak_memory_bytes=_peak_memory(model.device.type),
    )


def _tell(train: TrainingSet, validation: TrainingSet, progress: Progress) -> None:
    text = f"{len(train.features)} examples, {train.label_tokens} tokens to learn of {train.tokens}"
    if train.too_long:
        text += f"; {train.too_long} left out as too long"
    if train.refusals:
        text += f"; {len(train.refusals)} left out, the first because {train.refusals[0]}"
    if not validation.features:
        text += "; no validation examples, so training cannot stop early"
    progress.write("loading", text)


def _trainer(
    job: TrainingJob,
    tokenizer: Any,
    train: TrainingSet,
    validation: TrainingSet,
    checkpoints: Path,
    progress: Progress,
) -> tuple[Any, bool]:
    """The trainer, and whether its batches share the beginning of their examples."""
    from datasets import Dataset
    from transformers import EarlyStoppingCallback, set_seed

    from trainers.labelled_trainer import LabelledTrainer, MarkWhole, Reporter
    from trainers.lora import add_lora
    from trainers.prefix_shared import collator, is_exact_for

    plan, hyperparameters = job.plan, job.plan.hyperparameters
    set_seed(hyperparameters.seed)
    base = load_model(plan.base_model, device=job.device, dtype=job.dtype)
    exact, why_not = is_exact_for(base, hyperparameters.lora_dropout)
    if plan.prefix_shared and not exact:
        progress.write("loading", f"ordinary padded batches: {why_not}")
    shared = plan.prefix_shared and exact
    callbacks = [Reporter(progress), MarkWhole()]
    if validation.features:
        callbacks.append(EarlyStoppingCallback(hyperparameters.patience))
    trainer = LabelledTrainer(
        model=add_lora(base, hyperparameters, plan.base_model),
        args=_arguments(base, hyperparameters, len(train.features), bool(validation.features), checkpoints),
        data_collator=collator(tokenizer.pad_token_id, share=shared),
        train_dataset=Dataset.from_list(list(train.features)),
        eval_dataset=Dataset.from_list(list(validation.features)) if validation.features else None,
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    return trainer, shared


def _arguments(
    base: Any, hyperparameters: Hyperparameters, examples: int, validates: bool, checkpoints: Path
) -> Any:
    """TRL's arguments: warm-up, evaluation, checkpoints and log scaled to the number of steps."""
    import torch
    from trl import SFTConfig

    on_cpu = base.device.type == "cpu"
    epoch = -(-examples // (hyperparameters.batch_size * hyperparameters.gradient_accumulation))
    steps = max(1, round(epoch * hyperparameters.epochs))
    interval = max(1, epoch // hyperparameters.evaluations_per_epoch)
    return SFTConfig(
        output_dir=str(checkpoints),
        num_train_epochs=hyperparameters.epochs,
        per_device_train_batch_size=hyperparameters.batch_size,
        per_device_eval_batch_size=hyperparameters.batch_size,
        gradient_accumulation_steps=hyperparameters.gradient_accumulation,
        learning_rate=hyperparameters.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(steps * hyperparameters.warmup_share),
        eval_strategy="steps" if validates else "no",
        eval_steps=interval,
        save_strategy="steps",
        save_steps=interval,
        # The best one, the last one, and the one before: a kill while the last is written loses nothing.
        save_total_limit=3,
        load_best_model_at_end=validates,
        metric_for_best_model="eval_loss" if validates else None,
        restore_callback_states_from_checkpoint=True,
        logging_steps=max(1, steps // MOST_LOG_LINES),
        # The filter would hide a loss that is no number.
        logging_nan_inf_filter=False,
        max_length=None,
        bf16=base.dtype == torch.bfloat16,
        use_cpu=on_cpu,
        gradient_checkpointing=not on_cpu,
        seed=hyperparameters.seed,
        disable_tqdm=True,
        report_to="none",
    )


def _train(trainer: Any, checkpoints: Path, progress: Progress) -> float:
    """Train to the end, from the last whole checkpoint if there is one; returns the mean loss."""
    from trainers.labelled_trainer import last_checkpoint

    resume_from = last_checkpoint(checkpoints)
    if resume_from is not None:
        progress.write("training", f"resuming from {resume_from.name}")
    output = trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    return float(output.training_loss)


def _save(model: Any, folder: Path) -> dict[str, str]:
    from trainers.lora import save_adapter

    final, temporary = folder / ADAPTER, folder / f"{ADAPTER}.tmp"
    for leftover in (final, temporary):
        shutil.rmtree(leftover, ignore_errors=True)
    files = save_adapter(model, temporary)
    temporary.rename(final)
    return files


def _peak_memory(device: str) -> int:
    import torch

    if device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
