"""Training an embedding model: triplets and a plan become a LoRA adapter of a sentence-transformer.

The run's folder and its recovery are the same as for language models (`trainers/jobs/train.py`).
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
from trainers.jobs.legs import Leg, LegResult
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
from trainers.models.adapter_files import TRAINED_ADAPTER
from trainers.models.encoder import (
    add_encoder_lora,
    load_encoder,
    load_trainable_encoder_adapter,
    save_encoder_adapter,
)
from trainers.models.shared_base import borrow_base
from trainers.planning.hyperparameters import Hyperparameters
from trainers.planning.triplet_batches import TripletBatching, TripletData, choose_batches
from trainers.recovery.fallbacks import Attempt, MemoryRules
from trainers.recovery.guards import RunGuard, train_with_recovery

MAX_PART_ROWS = 64
"""Most rows of a batch, three texts each, that are in memory at once in the first attempt."""


@dataclass(frozen=True, kw_only=True)
class _EmbeddingRun(TrainingRun):
    data: TripletData


def train_embedding(
    job: TrainingJob, folder: Path, progress: Progress, *, max_part_rows: int = MAX_PART_ROWS
) -> TrainingResult:
    """Train an adapter on the triplets of the job's snapshot, into `folder`.

    A batch is computed in parts of at most `max_part_rows` rows.

    Raises LearndError: NothingToLearn, LoraMatchesNothing, AdapterUnusable, TrainingDiverged, OutOfMemory,
    BaseModelUnusable, SnapshotDamaged.
    """
    first = _begin_run(job, folder, progress, max_part_rows)

    def train_once(attempt: Attempt) -> TrainingResult:
        return _train_attempt(replace(first, attempt=attempt))

    # An encoder is small: its batches take most of the memory.
    rules = MemoryRules(may_quantize=False)
    return train_with_recovery(first.guard, train_once, checkpoints=first.checkpoints, rules=rules)


def train_embedding_leg(
    job: TrainingJob, leg: Leg, folder: Path, progress: Progress, encoder: Any
) -> LegResult:
    """Train one leg of the job's stage on the loaded `encoder`, which is given back as it was.

    The weights at the leg's end lie in a checkpoint in `folder`; after a last leg, the adapter. Raises as
    `train_embedding` does.
    """
    first = replace(_begin_run(job, folder, progress, MAX_PART_ROWS), leg=leg)

    def train_once(attempt: Attempt) -> LegResult:
        run = replace(first, attempt=attempt)
        with borrow_base(encoder.transformers_model):
            prepared = _prepare(run, encoder)
            loss = fit(prepared.trainer, run)
            result = _build_result(run, prepared, loss) if leg.is_last else None
            return build_leg_result(run, leg, prepared.planned, result)

    return train_with_recovery(
        first.guard, train_once, checkpoints=first.checkpoints, rules=MemoryRules(may_quantize=False)
    )


def prepare_embedding(job: TrainingJob, folder: Path, progress: Progress) -> PreparedTraining:
    """Prepare the first attempt of the job's training. Raises as `train_embedding` does."""
    return _prepare(_begin_run(job, folder, progress, MAX_PART_ROWS))


def _begin_run(job: TrainingJob, folder: Path, progress: Progress, max_part_rows: int) -> _EmbeddingRun:
    snapshot, hyperparameters = read_snapshot(Path(job.snapshot)), job.current_stage.hyperparameters
    train = snapshot.train.triplets
    if not train:
        raise NothingToLearn("the snapshot has no triplets; have documents of searches judged, or log clicks")
    batching = choose_batches(train, hyperparameters.batch_size, hyperparameters.triplet_loss)
    progress.write("loading", f"{batching.loss}, {batching.size} rows a batch: {batching.reason}")
    attempt = split_batch(batching, hyperparameters, max_part_rows)
    guard = RunGuard(folder, attempt, progress, job.limits, job.spent)
    data = TripletData(train, snapshot.validation.triplets, batching)
    return _EmbeddingRun(job, guard.state.attempt, guard, folder, progress, data=data)


def split_batch(
    batching: TripletBatching, hyperparameters: Hyperparameters, max_part_rows: int = MAX_PART_ROWS
) -> Attempt:
    """Split a batch into as few parts as possible, of at most `max_part_rows` rows and about equal size."""
    parts = -(-batching.size // max_part_rows)
    return Attempt(
        micro_batch=-(-batching.size // parts),
        accumulation=hyperparameters.gradient_accumulation * parts,
        checkpointing=False,
        quantization=None,
    )


def _prepare(run: _EmbeddingRun, encoder: Any = None) -> PreparedTraining:
    """Prepare the run's training, on `encoder` where one is loaded already."""
    from transformers import set_seed

    from trainers.jobs.reporting import ProgressReporter
    from trainers.methods.encoder_trainer import build_encoder_trainer, choose_trainer_batches, read_recalls

    job, data, hyperparameters = run.job, run.data, run.job.current_stage.hyperparameters
    set_seed(hyperparameters.seed)
    if encoder is None:
        run.progress.write("loading", f"base model {job.plan.base_model}")
        encoder = load_encoder(job.plan.base_model, device=job.device, dtype=job.dtype)
    workload = _measure_workload(encoder, data, run.attempt.micro_batch, run.progress)
    if job.start_adapter:
        load_trainable_encoder_adapter(encoder, Path(job.start_adapter))
    else:
        add_encoder_lora(encoder, hyperparameters)
    step_size = data.batching.size * hyperparameters.gradient_accumulation
    reporter = ProgressReporter(run.progress, read_recalls, workload.tokens / len(data.train) * step_size)
    trainer = build_encoder_trainer(
        encoder,
        data,
        run.attempt,
        hyperparameters,
        run.checkpoints,
        build_callbacks(run, reporter, validates=bool(data.validation)),
        partial(schedule_leg, run),
    )
    planned = choose_trainer_batches(data, run.attempt, hyperparameters).count_steps(len(data.train))
    return PreparedTraining(trainer, reporter, run.attempt, workload, replay=0, planned=planned)


def _train_attempt(run: _EmbeddingRun) -> TrainingResult:
    prepared = _prepare(run)
    return _build_result(run, prepared, fit(prepared.trainer, run))


def _build_result(run: _EmbeddingRun, prepared: PreparedTraining, loss: float) -> TrainingResult:
    """Write the adapter of a finished training, and return the result."""
    trainer, encoder = prepared.trainer, prepared.trainer.model
    save = partial(save_encoder_adapter, encoder, base_model=run.job.plan.base_model)
    return TrainingResult(
        adapter=ADAPTER,
        files=save_with_curves(run.folder, run.progress, trainer.state.global_step, save),
        rank=encoder.transformers_model.peft_config[TRAINED_ADAPTER].r,
        metrics=collect_metrics(run, prepared, loss),
    )


def _measure_workload(encoder: Any, data: TripletData, micro_batch: int, progress: Progress) -> Workload:
    """Measure the triplets' tokens up to the model's limit, and report how many texts are longer."""
    train, validation = [[_list_texts(each) for each in part] for part in (data.train, data.validation)]
    lengths = _count_tokens(encoder, train)
    limit = encoder.max_seq_length or max(lengths)
    cut = sum(length > limit for length in lengths)
    longest = [min(limit, max(lengths[column::3])) for column in range(3)]
    message = f"{len(train)} triplets, {len(validation)} for validation"
    if cut:
        message += f"; {cut} of {len(lengths)} texts are read up to {limit} tokens, as they are in searches"
    if not validation:
        message += "; no validation triplets, so training cannot stop early"
    progress.write("loading", message)
    return Workload(
        examples=len(train),
        tokens=sum(min(length, limit) for length in lengths),
        validation_tokens=sum(min(length, limit) for length in _count_tokens(encoder, validation)),
        # Queries, relevant and irrelevant documents are three padded batches.
        largest_batch=micro_batch * sum(longest),
        largest_mask=micro_batch * sum(length**2 for length in longest),
        most_labels=0,
    )


def _list_texts(triplet: Triplet) -> tuple[str, str, str]:
    return triplet.query, triplet.positive.text, triplet.negative.text


def _count_tokens(encoder: Any, rows: Sequence[tuple[str, ...]]) -> list[int]:
    """Return the number of tokens of each text in `rows`, row after row."""
    texts = [text for row in rows for text in row]
    if not texts:
        return []
    return [len(ids) for ids in encoder.tokenizer(texts, truncation=False, verbose=False)["input_ids"]]
