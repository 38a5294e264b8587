"""Learning to find documents: triplets and a plan become a LoRA adapter of a sentence-transformer.

A stage like any other (`trainers/training.py`): the run's folder holds the job's files, the checkpoints
while it runs, and in the end the adapter; a run that was killed goes on from its last checkpoint.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extractors.examples import Triplet
from extractors.snapshot import read_snapshot
from trainers.batches import Batches, choose_batches
from trainers.child import Progress
from trainers.encoder import add_encoder_lora, go_on_from, load_encoder, save_encoder_adapter
from trainers.guards import Guard, with_guards
from trainers.hyperparameters import Hyperparameters
from trainers.ladders import Attempt, MemoryRules
from trainers.lora import TRAINED
from trainers.training import ADAPTER, CHECKPOINTS, TrainingJob, TrainingMetrics, TrainingResult, Validation
from trainers.training_set import NothingToLearn

LARGEST_PART = 64
"""Rows of a batch, three texts each, that are in memory at once at first."""


@dataclass(frozen=True)
class _Try:
    """A training as it is tried this time."""

    job: TrainingJob
    train: Sequence[Triplet]
    validation: Sequence[Triplet]
    batches: Batches
    attempt: Attempt
    guard: Guard
    folder: Path
    progress: Progress

    @property
    def hyperparameters(self) -> Hyperparameters:
        return self.job.chosen.hyperparameters

    @property
    def checkpoints(self) -> Path:
        return self.folder / CHECKPOINTS


def train_embedding(job: TrainingJob, folder: Path, progress: Progress) -> TrainingResult:
    """Train an adapter on the triplets of the job's snapshot, into `folder`.

    Raises LearndError: NothingToLearn, LoraMatchesNothing, AdapterUnusable, TrainingDiverged, OutOfMemory,
    BaseModelUnusable, SnapshotDamaged.
    """
    snapshot = read_snapshot(Path(job.snapshot))
    train, validation = snapshot.train.triplets, snapshot.validation.triplets
    if not train:
        raise NothingToLearn("the snapshot has no triplets; have documents of searches judged, or log clicks")
    batches = choose_batches(train, job.chosen.hyperparameters.batch_size)
    progress.write("loading", f"{batches.loss}, {batches.size} rows a batch: {batches.reason}")
    guard = Guard(folder, _first_attempt(batches, job.chosen.hyperparameters), progress, job.limits)

    def train_once(attempt: Attempt) -> TrainingResult:
        return _trained(_Try(job, train, validation, batches, attempt, guard, folder, progress))

    # An encoder is small: what takes memory is its batch.
    rules = MemoryRules(may_quantize=False)
    return with_guards(guard, train_once, checkpoints=folder / CHECKPOINTS, rules=rules)


def _first_attempt(batches: Batches, hyperparameters: Hyperparameters) -> Attempt:
    part = min(batches.size, LARGEST_PART)
    return Attempt(
        micro_batch=part,
        accumulation=hyperparameters.gradient_accumulation * -(-batches.size // part),
        checkpointing=False,
        quantization=None,
    )


def _trained(this: _Try) -> TrainingResult:
    from transformers import set_seed

    from trainers.encoder_trainer import EncoderReporter, encoder_trainer

    started = time.monotonic()
    plan = this.job.plan
    this.progress.write("loading", f"base model {plan.base_model}")
    set_seed(this.hyperparameters.seed)
    encoder = load_encoder(plan.base_model, device=this.job.device, dtype=this.job.dtype)
    tokens = _tokens(this, encoder)
    if this.job.start_adapter:
        go_on_from(encoder, Path(this.job.start_adapter))
    else:
        add_encoder_lora(encoder, this.hyperparameters)
    rows_a_step = this.batches.size * this.hyperparameters.gradient_accumulation
    reporter = EncoderReporter(this.progress, tokens / len(this.train) * rows_a_step)
    trainer = encoder_trainer(
        encoder,
        this.train,
        this.validation,
        this.batches,
        this.attempt,
        this.hyperparameters,
        this.checkpoints,
        _callbacks(this, reporter),
    )
    loss = _fit(this, trainer)
    this.progress.write("saving")
    files = _save(encoder, this.folder, plan.base_model)
    shutil.rmtree(this.checkpoints, ignore_errors=True)
    metrics = _metrics(this, trainer, reporter, tokens, loss)
    return TrainingResult(
        adapter=ADAPTER,
        files=files,
        rank=encoder.transformers_model.peft_config[TRAINED].r,
        metrics=metrics.model_copy(update={"seconds": time.monotonic() - started}),
    )


def _tokens(this: _Try, encoder: Any) -> int:
    """Of all rows, as far as the model reads them; says how many texts are longer."""
    texts = [
        text
        for triplet in this.train
        for text in (triplet.query, triplet.positive.text, triplet.negative.text)
    ]
    lengths = [len(ids) for ids in encoder.tokenizer(texts, truncation=False, verbose=False)["input_ids"]]
    most = encoder.max_seq_length or max(lengths)
    cut = sum(length > most for length in lengths)
    said = f"{len(this.train)} triplets, {len(this.validation)} for validation"
    if cut:
        said += f"; {cut} of {len(texts)} texts are read up to {most} tokens, as they will be when searched"
    if not this.validation:
        said += "; no validation triplets, so training cannot stop early"
    this.progress.write("loading", said)
    return sum(min(length, most) for length in lengths)


def _callbacks(this: _Try, reporter: Any) -> list[Any]:
    from transformers import EarlyStoppingCallback

    from trainers.reporting import MarkWhole
    from trainers.watching import RateOfAttempt, StopDiverging, StopInTime

    callbacks = [reporter, StopDiverging(), StopInTime(this.guard), MarkWhole()]
    if this.attempt.rate_scale != 1:
        callbacks.append(RateOfAttempt())
    if this.validation:
        callbacks.append(EarlyStoppingCallback(this.hyperparameters.patience))
    return callbacks


def _fit(this: _Try, trainer: Any) -> float:
    """Train to the end, from the last whole checkpoint if there is one; returns the mean loss."""
    from trainers.checkpoints import last_checkpoint

    resume_from = last_checkpoint(this.checkpoints)
    if resume_from is not None:
        this.progress.write("training", f"resuming from {resume_from.name}")
    output = trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    return float(output.training_loss)


def _save(encoder: Any, folder: Path, base_model: str) -> dict[str, str]:
    final, temporary = folder / ADAPTER, folder / f"{ADAPTER}.tmp"
    for leftover in (final, temporary):
        shutil.rmtree(leftover, ignore_errors=True)
    files = save_encoder_adapter(encoder, temporary, base_model)
    temporary.rename(final)
    return files


def _metrics(this: _Try, trainer: Any, reporter: Any, tokens: int, loss: float) -> TrainingMetrics:
    from trainers.encoder_trainer import recalls
    from trainers.reporting import most_memory

    state, encoder = trainer.state, trainer.model
    validations = {
        entry["step"]: Validation(step=entry["step"], loss=entry["eval_loss"], figures=recalls(entry))
        for entry in state.log_history
        if "eval_loss" in entry
    }
    return TrainingMetrics(
        method="embedding",
        examples=len(this.train),
        tokens=tokens,
        steps=state.global_step,
        train_loss=loss,
        validation=tuple(validations.values()),
        best_step=state.best_global_step or state.global_step,
        recoveries=this.guard.state.recoveries,
        device=encoder.device.type,
        dtype=str(encoder.dtype).removeprefix("torch."),
        seconds=0.0,
        tokens_per_second=reporter.tokens_per_second,
        peak_memory_bytes=most_memory(encoder.device.type),
    )
