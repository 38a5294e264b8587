"""A stage of a plan becomes a LoRA adapter, in a child process, by whatever method the plan chose.

The run's folder holds the job's files (`trainers/child.py`), the checkpoints while it runs, and in
the end the adapter. A run that was killed resumes from its last checkpoint.
"""

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from extractors.snapshot import read_snapshot
from extractors.values import LearndError, Value, file_digest
from trainers.base_model import (
    Device,
    Dtype,
    base_digest,
    load_model,
    load_tokenizer,
    torch_device,
    use_threads,
)
from trainers.child import Progress, ProgressLine, run_job
from trainers.guards import Guard, with_guards
from trainers.hyperparameters import Hyperparameters, Method
from trainers.ladders import Attempt, Limits, MemoryRules, first_attempt
from trainers.plan import Plan, Stage
from trainers.quantized import Quantization
from trainers.training_set import LEAST_VOTES, TrainingSet, check_learnable, tokenised

ADAPTER = "adapter"
CHECKPOINTS = "checkpoints"
CURVES = "training.jsonl"
"""File in the adapter with the progress lines of its steps and validations."""
MOST_LOG_LINES = 500
"""Progress lines of a long training; a short one has a line for each step."""


class BaseChanged(LearndError):
    """The base model is not the one that the plan was made for."""


class TrainingJob(Value):
    """What a training child is asked to do."""

    plan: Plan
    stage: int = 0
    """Index in the plan's stages of the one to train."""
    snapshot: str
    """Folder of the snapshot."""
    start_adapter: str | None = None
    """Folder of the adapter that the stage before made; this one goes on from it."""
    limits: Limits = Limits()
    """What the run may take; when its time is up, its best checkpoint so far is its result."""
    may_quantize: bool = True
    """Whether the base may be held in 4 bits when memory runs out."""
    device: Device = "auto"
    dtype: Dtype = "auto"
    threads: int | None = None
    """CPU threads; None takes what torch would."""

    @property
    def chosen(self) -> Stage:
        """The stage to train."""
        return self.plan.stages[self.stage]


class Validation(Value):
    """What the validation split says after so many steps; after 0, before any training."""

    step: int
    loss: float
    """The method's own: for SFT in nats a token."""
    figures: dict[str, float] = {}
    """SFT: `token_accuracy`. DPO: `reward_accuracy`, the share of pairs whose chosen answer gained more
    than the rejected one against the reference (0 at step 0, where neither has), and `reward_margin`.
    KTO: `liked_reward`, `disliked_reward` and their difference, `separation`."""


class TrainingMetrics(Value):
    """How the training went."""

    method: Method
    examples: int
    too_long: int = 0
    """Training examples left out because they exceed `max_length`."""
    refused: int = 0
    """Training examples left out because the chat template cannot express them."""
    tokens: int
    """Of all training examples, once."""
    label_tokens: int = 0
    """Those of them that are learned."""
    steps: int
    train_loss: float
    """Mean over the steps since the last start, in the method's own unit."""
    validation: tuple[Validation, ...] = ()
    best_step: int
    """The step whose weights were kept."""
    prefix_shared: bool = False
    desirable_weight: float | None = None
    """KTO: how much a liked answer counts."""
    undesirable_weight: float | None = None
    """KTO: how much a disliked answer counts."""
    quantization: Quantization | None = None
    """How the base was held in the end."""
    recoveries: tuple[str, ...] = ()
    """What was done for lack of memory, after a divergence or when the time was up, in words."""
    device: str
    dtype: str
    seconds: float
    """Since the last start."""
    tokens_per_second: float
    """In steps, as the examples hold them: what examples share counts for each."""
    peak_memory_bytes: int
    """Of the GPU where one is used, else of the process."""

    @property
    def before(self) -> Validation | None:
        """The validation before any training."""
        return next((each for each in self.validation if each.step == 0), None)

    @property
    def best(self) -> Validation | None:
        """The validation of the weights that were kept."""
        return next((each for each in self.validation if each.step == self.best_step), None)


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
        from trainers.embedding import train_embedding

        return train_embedding(job, folder, progress)
    return _train_language_model(job, folder, progress)


@dataclass(frozen=True)
class _Try:
    """A training as it is tried this time."""

    job: TrainingJob
    attempt: Attempt
    hyperparameters: Hyperparameters
    guard: Guard
    folder: Path
    progress: Progress

    @property
    def method(self) -> Method:
        return self.job.chosen.method

    @property
    def checkpoints(self) -> Path:
        return self.folder / CHECKPOINTS


@dataclass(frozen=True)
class Opened:
    """A trainer of a language model before its first step."""

    trainer: Any
    reporter: Any
    learned: TrainingSet
    validation: TrainingSet
    shared: bool
    """Whether its batches share what they can."""


def opened(job: TrainingJob, folder: Path, progress: Progress) -> Opened:
    """What the job's training would begin with, for a short run of it. Raises as `train` does."""
    use_threads(job.threads)
    return _opened(_first_try(job, folder, progress))


def _train_language_model(job: TrainingJob, folder: Path, progress: Progress) -> TrainingResult:
    """The first attempt that comes to an end."""
    first = _first_try(job, folder, progress)

    def train_once(attempt: Attempt) -> TrainingResult:
        hyperparameters = attempt.applied_to(first.hyperparameters)
        return _trained(replace(first, attempt=attempt, hyperparameters=hyperparameters))

    least = LEAST_VOTES if first.method == "kto" else 1
    rules = MemoryRules(least_micro_batch=least, may_quantize=job.may_quantize)
    return with_guards(first.guard, train_once, checkpoints=first.checkpoints, rules=rules)


def _first_try(job: TrainingJob, folder: Path, progress: Progress) -> _Try:
    hyperparameters = job.chosen.hyperparameters
    if job.chosen.method == "kto":
        enough = max(hyperparameters.batch_size, LEAST_VOTES)
        hyperparameters = hyperparameters.model_copy(update={"batch_size": enough})
    on_cpu = torch_device(job.device) == "cpu"
    attempt = first_attempt(hyperparameters, on_cpu=on_cpu, quantization=job.plan.quantization)
    guard = Guard(folder, attempt, progress, job.limits)
    return _Try(job, attempt, hyperparameters, guard, folder, progress)


def _opened(this: _Try) -> Opened:
    from trainers.reporting import Reporter

    plan, kind, progress = this.job.plan, this.job.chosen.data, this.progress
    progress.write("loading", f"base model {plan.base_model}")
    snapshot, tokenizer = read_snapshot(Path(this.job.snapshot)), load_tokenizer(plan.base_model)
    learned = tokenised(tokenizer, kind, snapshot.train, this.hyperparameters)
    validation = tokenised(tokenizer, kind, snapshot.validation, this.hyperparameters)
    check_learnable(learned, this.hyperparameters.max_length)
    _tell(learned, validation, progress)
    reporter = Reporter(this.method, progress)
    trainer, shared = _trainer(this, tokenizer, learned, validation, reporter)
    return Opened(trainer, reporter, learned, validation, shared)


def _trained(this: _Try) -> TrainingResult:
    started = time.monotonic()
    begun = _opened(this)
    trainer = begun.trainer
    loss = _fit(this, trainer)
    this.progress.write("saving")
    files = _save(trainer.model, this.folder)
    shutil.rmtree(this.checkpoints, ignore_errors=True)
    metrics = _metrics(this, trainer, begun.learned, begun.reporter, loss)
    seconds = time.monotonic() - started
    return TrainingResult(
        adapter=ADAPTER,
        files=files,
        rank=trainer.model.peft_config[trainer.model.active_adapter].r,
        metrics=metrics.model_copy(update={"prefix_shared": begun.shared, "seconds": seconds}),
    )


def _metrics(this: _Try, trainer: Any, learned: TrainingSet, reporter: Any, loss: float) -> TrainingMetrics:
    from trainers.reporting import figures, most_memory

    state, model, method = trainer.state, trainer.model, this.method
    validations = {
        entry["step"]: Validation(step=entry["step"], loss=entry["eval_loss"], figures=figures(method, entry))
        for entry in state.log_history
        if "eval_loss" in entry
    }
    return TrainingMetrics(
        method=method,
        examples=len(learned.features),
        too_long=learned.too_long,
        refused=len(learned.refusals),
        tokens=learned.tokens,
        label_tokens=learned.label_tokens,
        steps=state.global_step,
        train_loss=loss,
        validation=tuple(validations.values()),
        best_step=state.best_global_step or state.global_step,
        desirable_weight=trainer.args.desirable_weight if method == "kto" else None,
        undesirable_weight=trainer.args.undesirable_weight if method == "kto" else None,
        quantization=this.attempt.quantization,
        recoveries=this.guard.state.recoveries,
        device=model.device.type,
        dtype=str(model.dtype).removeprefix("torch."),
        seconds=0.0,
        tokens_per_second=reporter.tokens_per_second,
        peak_memory_bytes=most_memory(model.device.type),
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
    this: _Try, tokenizer: Any, learned: TrainingSet, validation: TrainingSet, reporter: Any
) -> tuple[Any, bool]:
    """TRL's trainer on the training and the validation set, and whether its batches share what they can."""
    from datasets import Dataset
    from transformers import set_seed

    from trainers.lora import checked
    from trainers.quantized import train_in_float32
    from trainers.shared_forward import share_prefixes

    set_seed(this.hyperparameters.seed)
    job, quantization = this.job, this.attempt.quantization
    base = load_model(job.plan.base_model, device=job.device, dtype=job.dtype, quantization=quantization)
    shared = _shares(this, base)
    validates = bool(validation.features)
    trainer = _made(this.method)(
        _arguments(this, base, len(learned.features), validates),
        this.hyperparameters,
        train_dataset=Dataset.from_list(list(learned.features)),
        eval_dataset=Dataset.from_list(list(validation.features)) if validates else None,
        processing_class=tokenizer,
        callbacks=_callbacks(this, reporter, validates),
        **_adapter(this, base),
    )
    checked(trainer.model, job.plan.base_model)
    if quantization:
        train_in_float32(trainer.model)
    share_prefixes(trainer.model.get_base_model(), share=shared)
    return trainer, shared


def _made(method: Method) -> Any:
    """What makes the method's trainer."""
    if method == "sft":
        from trainers.sft import sft_trainer

        return sft_trainer
    from trainers.preference import dpo_trainer, kto_trainer

    return {"dpo": dpo_trainer, "kto": kto_trainer}[method]


def _shares(this: _Try, base: Any) -> bool:
    """Whether batches share what they can: if the plan says so and it is exact."""
    from trainers.shared_forward import is_exact_for

    # TRL switches dropout off for DPO and KTO: their reference would differ by it.
    dropout = this.hyperparameters.lora_dropout if this.method == "sft" else 0.0
    exact, why_not = is_exact_for(base, dropout)
    if this.job.plan.prefix_shared and not exact:
        this.progress.write("loading", f"ordinary padded batches: {why_not}")
    return this.job.plan.prefix_shared and exact


def _adapter(this: _Try, base: Any) -> dict[str, Any]:
    """The base with the adapter of the stage before, or with a fresh one that TRL is to make."""
    from trainers.lora import load_lora, lora_config

    if this.job.start_adapter:
        return {"model": load_lora(base, Path(this.job.start_adapter), this.job.plan.base_model)}
    config = lora_config(base, this.hyperparameters, this.job.plan.base_model)
    return {"model": base, "peft_config": config}


def _callbacks(this: _Try, reporter: Any, validates: bool) -> list[Any]:
    from transformers import EarlyStoppingCallback

    from trainers.reporting import MarkWhole
    from trainers.watching import RateOfAttempt, StopDiverging, StopInTime

    callbacks = [reporter, StopDiverging(), StopInTime(this.guard), MarkWhole()]
    if this.attempt.rate_scale != 1:
        callbacks.append(RateOfAttempt())
    if validates:
        callbacks.append(EarlyStoppingCallback(this.hyperparameters.patience))
    return callbacks


def _arguments(this: _Try, base: Any, examples: int, validates: bool) -> dict[str, Any]:
    """TRL's arguments: warm-up, evaluation, checkpoints and log scaled to the number of steps."""
    import torch

    from trainers.checkpoints import last_checkpoint

    hyperparameters = this.hyperparameters
    epoch = -(-examples // (hyperparameters.batch_size * hyperparameters.gradient_accumulation))
    steps = max(1, round(epoch * hyperparameters.epochs))
    interval = max(1, epoch // hyperparameters.evaluations_per_epoch)
    return {
        "output_dir": str(this.checkpoints),
        "num_train_epochs": hyperparameters.epochs,
        "per_device_train_batch_size": hyperparameters.batch_size,
        "per_device_eval_batch_size": hyperparameters.batch_size,
        "gradient_accumulation_steps": hyperparameters.gradient_accumulation,
        "learning_rate": hyperparameters.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": round(steps * hyperparameters.warmup_share),
        "eval_strategy": "steps" if validates else "no",
        "eval_steps": interval,
        # A second look at what was seen before the kill would count against the patience.
        "eval_on_start": validates and last_checkpoint(this.checkpoints) is None,
        "save_strategy": "steps",
        "save_steps": interval,
        # The best one, the last one, and the one before: a kill while the last is written loses nothing.
        "save_total_limit": 3,
        "load_best_model_at_end": validates,
        "metric_for_best_model": "eval_loss" if validates else None,
        "restore_callback_states_from_checkpoint": True,
        "logging_steps": max(1, steps // MOST_LOG_LINES),
        # The filter would hide a loss that is no number.
        "logging_nan_inf_filter": False,
        "bf16": base.dtype == torch.bfloat16,
        "use_cpu": base.device.type == "cpu",
        "activation_checkpointing": this.attempt.checkpointing,
        "seed": hyperparameters.seed,
        "disable_tqdm": True,
        "report_to": "none",
    }


def _fit(this: _Try, trainer: Any) -> float:
    """Train to the end, from the last whole checkpoint if there is one; returns the mean loss."""
    from trainers.checkpoints import last_checkpoint

    resume_from = last_checkpoint(this.checkpoints)
    if resume_from is not None:
        this.progress.write("training", f"resuming from {resume_from.name}")
    output = trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    return float(output.training_loss)


def _save(model: Any, folder: Path) -> dict[str, str]:
    from trainers.lora import save_adapter

    final, temporary = folder / ADAPTER, folder / f"{ADAPTER}.tmp"
    for leftover in (final, temporary):
        shutil.rmtree(leftover, ignore_errors=True)
    files = save_adapter(model, temporary)
    curves = temporary / CURVES
    curves.write_text("".join(f"{line}\n" for line in _curves(folder / "progress.jsonl")), "utf-8")
    temporary.rename(final)
    return {**files, CURVES: file_digest(final / CURVES)}


def _curves(progress: Path) -> list[str]:
    """The lines of steps and validations; of those that a killed run made again, the last."""
    kept: dict[tuple[int, bool], str] = {}
    for line in progress.read_text("utf-8").splitlines():
        said = ProgressLine.model_validate_json(line)
        if said.stage == "training" and said.step is not None:
            kept[said.step, said.loss is None] = line
    return [kept[key] for key in sorted(kept)]
