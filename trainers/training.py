"""A stage of a plan becomes a LoRA adapter, in a child process, by whatever method the plan chose.

The run's folder holds the job's files (`trainers/child.py`), the checkpoints while it runs, and in
the end the adapter. A run that was killed resumes from its last checkpoint.
"""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from extractors.snapshot import read_snapshot
from extractors.values import LearndError, Value, file_digest
from trainers.base_model import Device, Dtype, base_digest, load_model, load_tokenizer, use_threads
from trainers.child import Progress, ProgressLine, run_job
from trainers.hyperparameters import Hyperparameters, Method
from trainers.plan import Plan, Stage
from trainers.training_set import LEAST_VOTES, TrainingSet, check_learnable, tokenised

ADAPTER = "adapter"
CHECKPOINTS = "checkpoints"
CURVES = "training.jsonl"
"""File in the adapter with the progress lines of its steps and validations."""
MOST_LOG_LINES = 500
"""Progress lines of a long training; a short one has a line for each step."""


class BaseChanged(LearndError):
    """The base model is not the one that the plan was made for."""


class OutOfMemory(LearndError):
    """The device has too little memory for this plan."""


class TrainingJob(Value):
    """What a training child is asked to do."""

    plan: Plan
    stage: int = 0
    """Index in the plan's stages of the one to train."""
    snapshot: str
    """Folder of the snapshot."""
    start_adapter: str | None = None
    """Folder of the adapter that the stage before made; this one goes on from it."""
    activation_checkpointing: bool | None = None
    """Compute activations again in the backward pass to save memory; None: on a GPU."""
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


def train(
    job: TrainingJob, folder: Path, progress: Progress, callbacks: Sequence[Any] = ()
) -> TrainingResult:
    """Train the job's stage on its snapshot, into `folder`; `callbacks` are further ones of transformers.

    Raises LearndError: BaseChanged, NothingToLearn, LoraMatchesNothing, AdapterUnusable,
    TrainingDiverged, OutOfMemory, BaseModelUnusable, SnapshotDamaged.
    """
    if base_digest(job.plan.base_model) != job.plan.base_digest:
        raise BaseChanged(f"{job.plan.base_model} has changed since the plan was made; start the cycle again")
    use_threads(job.threads)
    if job.chosen.method == "embedding":
        from trainers.embedding import train_embedding

        return train_embedding(job, folder, progress)
    return _train_language_model(job, folder, progress, callbacks)


def _train_language_model(
    job: TrainingJob, folder: Path, progress: Progress, callbacks: Sequence[Any]
) -> TrainingResult:
    import torch

    from trainers.reporting import Reporter

    started = time.monotonic()
    hyperparameters = _hyperparameters(job.chosen)
    progress.write("loading", f"base model {job.plan.base_model}")
    snapshot, tokenizer = read_snapshot(Path(job.snapshot)), load_tokenizer(job.plan.base_model)
    kind = job.chosen.data
    learned = tokenised(tokenizer, kind, snapshot.train, hyperparameters)
    validation = tokenised(tokenizer, kind, snapshot.validation, hyperparameters)
    check_learnable(learned, hyperparameters.max_length)
    _tell(learned, validation, progress)
    reporter = Reporter(job.chosen.method, progress)
    try:
        trainer, shared = _trainer(
            job, tokenizer, (learned, validation), folder / CHECKPOINTS, progress, [reporter, *callbacks]
        )
        loss = _fit(trainer, folder / CHECKPOINTS, progress)
    except (torch.OutOfMemoryError, RuntimeError) as full:
        if not isinstance(full, torch.OutOfMemoryError) and "can't allocate memory" not in str(full):
            raise
        raise OutOfMemory(
            f"{full}; lower `batch_size` (raise `gradient_accumulation`) or `max_length` in its settings"
        ) from full
    progress.write("saving")
    files = _save(trainer.model, folder)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    metrics = _metrics(job, trainer, learned, reporter, loss)
    return TrainingResult(
        adapter=ADAPTER,
        files=files,
        rank=trainer.model.peft_config["default"].r,
        metrics=metrics.model_copy(update={"prefix_shared": shared, "seconds": time.monotonic() - started}),
    )


def _hyperparameters(stage: Stage) -> Hyperparameters:
    """The stage's, with a batch that its method can take."""
    chosen = stage.hyperparameters
    if stage.method != "kto" or chosen.batch_size >= LEAST_VOTES:
        return chosen
    return chosen.model_copy(update={"batch_size": LEAST_VOTES})


def _metrics(
    job: TrainingJob, trainer: Any, learned: TrainingSet, reporter: Any, loss: float
) -> TrainingMetrics:
    from trainers.reporting import figures, most_memory

    state, model, method = trainer.state, trainer.model, job.chosen.method
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
    job: TrainingJob,
    tokenizer: Any,
    sets: tuple[TrainingSet, TrainingSet],
    checkpoints: Path,
    progress: Progress,
    callbacks: list[Any],
) -> tuple[Any, bool]:
    """TRL's trainer on the training and the validation set, and whether its batches share what they can."""
    from datasets import Dataset
    from transformers import EarlyStoppingCallback, set_seed

    from trainers.checkpoints import MarkWhole
    from trainers.lora import checked, load_lora, lora_config
    from trainers.quantized import train_in_float32
    from trainers.shared_forward import is_exact_for, share_prefixes

    learned, validation = sets
    plan, hyperparameters = job.plan, _hyperparameters(job.chosen)
    set_seed(hyperparameters.seed)
    base = load_model(plan.base_model, device=job.device, dtype=job.dtype, quantization=plan.quantization)
    exact, why_not = is_exact_for(base, _dropout(job.chosen))
    if plan.prefix_shared and not exact:
        progress.write("loading", f"ordinary padded batches: {why_not}")
    shared = plan.prefix_shared and exact
    if validation.features:
        callbacks = [*callbacks, EarlyStoppingCallback(hyperparameters.patience)]
    adapter: dict[str, Any] = (
        {"model": load_lora(base, Path(job.start_adapter))}
        if job.start_adapter
        else {"model": base, "peft_config": lora_config(base, hyperparameters, plan.base_model)}
    )
    trainer = _made(job.chosen.method)(
        _arguments(job, base, len(learned.features), bool(validation.features), checkpoints),
        hyperparameters,
        train_dataset=Dataset.from_list(list(learned.features)),
        eval_dataset=Dataset.from_list(list(validation.features)) if validation.features else None,
        processing_class=tokenizer,
        callbacks=[*callbacks, MarkWhole()],
        **adapter,
    )
    checked(trainer.model)
    if plan.quantization:
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


def _dropout(stage: Stage) -> float:
    """What is in effect: TRL switches it off for DPO and KTO, whose reference would differ by it."""
    return stage.hyperparameters.lora_dropout if stage.method == "sft" else 0.0


def _arguments(
    job: TrainingJob, base: Any, examples: int, validates: bool, checkpoints: Path
) -> dict[str, Any]:
    """TRL's arguments: warm-up, evaluation, checkpoints and log scaled to the number of steps."""
    import torch

    from trainers.checkpoints import last_checkpoint

    hyperparameters = _hyperparameters(job.chosen)
    on_cpu = base.device.type == "cpu"
    epoch = -(-examples // (hyperparameters.batch_size * hyperparameters.gradient_accumulation))
    steps = max(1, round(epoch * hyperparameters.epochs))
    interval = max(1, epoch // hyperparameters.evaluations_per_epoch)
    checkpointing = job.activation_checkpointing
    return {
        "output_dir": str(checkpoints),
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
        "eval_on_start": validates and last_checkpoint(checkpoints) is None,
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
        "use_cpu": on_cpu,
        "activation_checkpointing": not on_cpu if checkpointing is None else checkpointing,
        "seed": hyperparameters.seed,
        "disable_tqdm": True,
        "report_to": "none",
    }


def _fit(trainer: Any, checkpoints: Path, progress: Progress) -> float:
    """Train to the end, from the last whole checkpoint if there is one; returns the mean loss."""
    from trainers.checkpoints import last_checkpoint

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
