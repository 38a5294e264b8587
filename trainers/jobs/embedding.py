"""Learning to find documents: triplets and a plan become a LoRA adapter of a sentence-transformer.

A stage like any other (`trainers.jobs.language_model`): the run folder holds the files of the job, the
checkpoints while it runs, and in the end the adapter. A run that was killed goes on from its last checkpoint.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from extractors.dataset.snapshot import read_snapshot
from extractors.examples.types import Triplet
from trainers.batching.tokenise import NothingToLearn
from trainers.batching.workload import Workload
from trainers.job_folder import Progress
from trainers.jobs.job import ADAPTER, TrainingJob, TrainingResult
from trainers.jobs.shared_steps import (
    PreparedTraining,
    TrainingRun,
    build_callbacks,
    collect_metrics,
    fit,
    save_with_curves,
)
from trainers.methods.triplet_batches import TripletBatching, choose_batches
from trainers.models.adapter_files import TRAINED_ADAPTER
from trainers.models.encoder import (
    add_encoder_lora,
    load_encoder,
    load_trainable_encoder_adapter,
    save_encoder_adapter,
)
from trainers.planning.hyperparameters import Hyperparameters
from trainers.recovery.fallbacks import Attempt, MemoryRules
from trainers.recovery.guards import RunGuard, train_with_recovery

LARGEST_PART = 64
"""Rows of a batch, three texts each, that are in memory at once at first."""


@dataclass(frozen=True)
class _EmbeddingRun(TrainingRun):
    train: Sequence[Triplet]
    validation: Sequence[Triplet]
    batches: TripletBatching


def train_embedding(job: TrainingJob, folder: Path, progress: Progress) -> TrainingResult:
    """Train an adapter on the triplets of the job's snapshot, into `folder`.

    Raises LearndError: NothingToLearn, LoraMatchesNothing, AdapterUnusable, TrainingDiverged, OutOfMemory,
    BaseModelUnusable, SnapshotDamaged.
    """
    first = _begin_run(job, folder, progress)

    def train_once(attempt: Attempt) -> TrainingResult:
        return _train_attempt(replace(first, attempt=attempt))

    # An encoder is small: what takes memory is its batch.
    rules = MemoryRules(may_quantize=False)
    return train_with_recovery(first.guard, train_once, checkpoints=first.checkpoints, rules=rules)


def prepare_embedding(job: TrainingJob, folder: Path, progress: Progress) -> PreparedTraining:
    """What the job's training would begin with. Raises as `train_embedding` does."""
    return _prepare(_begin_run(job, folder, progress))


def _begin_run(job: TrainingJob, folder: Path, progress: Progress) -> _EmbeddingRun:
    snapshot = read_snapshot(Path(job.snapshot))
    train, validation = snapshot.train.triplets, snapshot.validation.triplets
    if not train:
        raise NothingToLearn("the snapshot has no triplets; have documents of searches judged, or log clicks")
    batches = choose_batches(train, job.chosen.hyperparameters.batch_size)
    progress.write("loading", f"{batches.loss}, {batches.size} rows a batch: {batches.reason}")
    guard = RunGuard(
        folder, split_batch(batches, job.chosen.hyperparameters), progress, job.limits, job.spent
    )
    return _EmbeddingRun(job, guard.state.attempt, guard, folder, progress, train, validation, batches)


def split_batch(batches: TripletBatching, hyperparameters: Hyperparameters) -> Attempt:
    """The batch in as few parts as hold LARGEST_PART rows or fewer, and as even ones as there are."""
    parts = -(-batches.size // LARGEST_PART)
    return Attempt(
        micro_batch=-(-batches.size // parts),
        accumulation=hyperparameters.gradient_accumulation * parts,
        checkpointing=False,
        quantization=None,
    )


def _prepare(this: _EmbeddingRun) -> PreparedTraining:
    from transformers import set_seed

    from trainers.jobs.reporting import ProgressReporter
    from trainers.methods.encoder_trainer import build_encoder_trainer, read_recalls

    plan, hyperparameters = this.job.plan, this.job.chosen.hyperparameters
    this.progress.write("loading", f"base model {plan.base_model}")
    set_seed(hyperparameters.seed)
    encoder = load_encoder(plan.base_model, device=this.job.device, dtype=this.job.dtype)
    workload = _measure_workload(this, encoder)
    if this.job.start_adapter:
        load_trainable_encoder_adapter(encoder, Path(this.job.start_adapter))
    else:
        add_encoder_lora(encoder, hyperparameters)
    rows_a_step = this.batches.size * hyperparameters.gradient_accumulation
    reporter = ProgressReporter(this.progress, read_recalls, workload.tokens / len(this.train) * rows_a_step)
    trainer = build_encoder_trainer(
        encoder,
        this.train,
        this.validation,
        this.batches,
        this.attempt,
        hyperparameters,
        this.checkpoints,
        build_callbacks(this, reporter, validates=bool(this.validation)),
    )
    return PreparedTraining(trainer, reporter, this.attempt, workload)


def _train_attempt(this: _EmbeddingRun) -> TrainingResult:
    begun = _prepare(this)
    encoder = begun.trainer.model
    loss = fit(this, begun.trainer)
    save = partial(save_encoder_adapter, encoder, base_model=this.job.plan.base_model)
    return TrainingResult(
        adapter=ADAPTER,
        files=save_with_curves(this, begun.trainer.state.global_step, save),
        rank=encoder.transformers_model.peft_config[TRAINED_ADAPTER].r,
        metrics=collect_metrics(this, begun, loss),
    )


def _measure_workload(this: _EmbeddingRun, encoder: Any) -> Workload:
    """What there is to read, as far as the model reads texts; says how many are longer."""
    rows, others = ([_list_texts(triplet) for triplet in some] for some in (this.train, this.validation))
    lengths = _count_tokens(encoder, rows)
    most = encoder.max_seq_length or max(lengths)
    cut = sum(length > most for length in lengths)
    longest = [min(most, max(lengths[of::3])) for of in range(3)]
    said = f"{len(rows)} triplets, {len(others)} for validation"
    if cut:
        said += f"; {cut} of {len(lengths)} texts are read up to {most} tokens, as they will be when searched"
    if not others:
        said += "; no validation triplets, so training cannot stop early"
    this.progress.write("loading", said)
    return Workload(
        examples=len(rows),
        tokens=sum(min(length, most) for length in lengths),
        validation_tokens=sum(min(length, most) for length in _count_tokens(encoder, others)),
        # Queries, relevant and irrelevant documents are three padded batches.
        largest_batch=this.attempt.micro_batch * sum(longest),
        largest_mask=this.attempt.micro_batch * sum(length**2 for length in longest),
        most_labels=0,
    )


def _list_texts(triplet: Triplet) -> tuple[str, str, str]:
    return triplet.query, triplet.positive.text, triplet.negative.text


def _count_tokens(encoder: Any, rows: Sequence[tuple[str, ...]]) -> list[int]:
    """Tokens of each text of `rows`."""
    texts = [text for row in rows for text in row]
    if not texts:
        return []
    return [len(ids) for ids in encoder.tokenizer(texts, truncation=False, verbose=False)["input_ids"]]
