"""The first attempt of a job's training and its estimate, counted from the job before anything is loaded.

A training begins on the first rung of the memory ladder that is likely to fit, rather than fail its way
down to it: on a CPU the first failure is often a kill by the kernel, without a word.
"""

from pathlib import Path
from typing import Any

from extractors.dataset.snapshot import read_snapshot
from extractors.examples.types import Examples
from trainers.batching.tokenise import MIN_VOTES, check_learnable, tokenise
from trainers.batching.workload import Workload, measure_workload
from trainers.estimate.architecture import Architecture, read_architecture
from trainers.estimate.estimates import MemoryEstimate, TrainingEstimate
from trainers.estimate.memory_and_time import estimate_memory, estimate_training, find_fitting_attempt
from trainers.jobs.job import TrainingJob
from trainers.jobs.replay_set import tokenise_replay
from trainers.memory import measure_free_memory, release_memory
from trainers.models.base_model import BaseModelUnusable, Dtype, load_tokenizer, resolve_device, resolve_dtype
from trainers.models.quantization import find_quantization, find_quantization_obstacle
from trainers.planning.hyperparameters import Hyperparameters
from trainers.planning.plan import ExampleKind
from trainers.recovery.fallbacks import Attempt, MemoryRules, build_first_attempt

SAMPLE_SIZE = 512
"""Most examples that are tokenised to choose the first attempt."""
SHORT_EXAMPLE = 512
"""Tokens of a short example."""


def plan_attempt(job: TrainingJob) -> Attempt:
    """Return the attempt of a language model's training as its plan has it. Raises BaseModelUnusable."""
    planned = build_first_attempt(
        job.current_stage.hyperparameters,
        on_cpu=resolve_device(job.device) == "cpu",
        quantization=job.plan.quantization,
    )
    return planned.model_copy(update={"micro_batch": max(planned.micro_batch, _find_min_micro_batch(job))})


def build_memory_rules(job: TrainingJob) -> MemoryRules:
    """Return the rules by which the job may save memory. Raises BaseModelUnusable."""
    may_quantize = job.may_quantize and find_quantization_obstacle(resolve_device(job.device)) is None
    return MemoryRules(least_micro_batch=_find_min_micro_batch(job), may_quantize=may_quantize)


def _find_min_micro_batch(job: TrainingJob) -> int:
    return MIN_VOTES if job.current_stage.method == "kto" else 1


def choose_first_attempt(job: TrainingJob, base: Any = None) -> tuple[Attempt, str]:
    """Choose the attempt with which a language model's training begins; return it and the reason.

    A `base` that is loaded already stays in its precision. Raises BaseModelUnusable, SnapshotDamaged.
    """
    plan, stage = job.plan, job.current_stage
    first, rules = plan_attempt(job), build_memory_rules(job)
    if base is not None:
        first = first.model_copy(update={"quantization": find_quantization(base)})
        rules = rules.model_copy(update={"may_quantize": False})
    try:
        architecture = read_architecture(plan.base_model)
    except BaseModelUnusable as unknown:
        return first, str(unknown)
    examples = _take_sample(read_snapshot(Path(job.snapshot)).train, stage.data)
    tokenizer = load_tokenizer(plan.base_model)
    sample = tokenise(tokenizer, stage.data, examples, stage.hyperparameters)
    if not sample.features:
        return first, "no example can be learned"
    features = (*sample.features, *tokenise_replay(tokenizer, job).features)

    def estimate_for(attempt: Attempt) -> MemoryEstimate:
        widths = architecture.widths if plan.prefix_shared else None
        load = measure_workload(features, 0, attempt.micro_batch, widths=widths)
        return _estimate_memory(job, architecture, load, attempt)

    return find_fitting_attempt(first, rules, estimate_for, _measure_memory_for(job, base))


def _measure_memory_for(job: TrainingJob, base: Any) -> int:
    """Return the bytes that the training could take, those of a loaded `base` included."""
    device = resolve_device(job.device)
    if base is None:
        return measure_free_memory(device)
    # Torch keeps what the contender before used.
    release_memory()
    return measure_free_memory(device) + int(base.get_memory_footprint())


def estimate_by_count(job: TrainingJob) -> TrainingEstimate | None:
    """Estimate a language model's training without its time; None if the base's size is unknown.

    Raises BaseModelUnusable, SnapshotDamaged, NothingToLearn.
    """
    attempt, _ = choose_first_attempt(job)
    try:
        architecture = read_architecture(job.plan.base_model)
    except BaseModelUnusable:
        return None
    snapshot, tokenizer = read_snapshot(Path(job.snapshot)), load_tokenizer(job.plan.base_model)
    kind, hyperparameters = job.current_stage.data, job.current_stage.hyperparameters
    train = tokenise(tokenizer, kind, snapshot.train, hyperparameters)
    validation = tokenise(tokenizer, kind, snapshot.validation, hyperparameters)
    check_learnable(train, hyperparameters.max_length)
    widths = architecture.widths if job.plan.prefix_shared else None
    features = (*train.features, *tokenise_replay(tokenizer, job).features)
    workload = measure_workload(features, validation.tokens, attempt.micro_batch, widths=widths)
    memory = _estimate_memory(job, architecture, workload, attempt)
    return estimate_training(workload, hyperparameters, attempt, memory, None)


def estimate_least_memory(
    base: str, lora_rank: int, *, dtype: Dtype, device: str, quantized: bool
) -> MemoryEstimate:
    """Estimate the least memory of any training of `base`: one short example at once.

    Raises BaseModelUnusable.
    """
    smallest = Workload(
        examples=1,
        tokens=SHORT_EXAMPLE,
        validation_tokens=0,
        largest_batch=SHORT_EXAMPLE,
        largest_mask=SHORT_EXAMPLE**2,
        most_labels=SHORT_EXAMPLE // 8,
    )
    attempt = Attempt(
        micro_batch=1, accumulation=1, checkpointing=True, quantization="nf4" if quantized else None
    )
    return estimate_memory(
        read_architecture(base),
        smallest,
        Hyperparameters(lora_rank=lora_rank),
        attempt,
        str(resolve_dtype(dtype, device)).removeprefix("torch."),
        device,
    )


def estimate_attempt(
    job: TrainingJob, attempt: Attempt, workload: Workload, tokens_per_second: float | None
) -> TrainingEstimate:
    """Estimate the job's training with this attempt, at the speed of its first steps if there were any.

    Raises BaseModelUnusable if the base's size is unknown.
    """
    memory = _estimate_memory(job, read_architecture(job.plan.base_model), workload, attempt)
    return estimate_training(workload, job.current_stage.hyperparameters, attempt, memory, tokens_per_second)


def _estimate_memory(
    job: TrainingJob, architecture: Architecture, workload: Workload, attempt: Attempt
) -> MemoryEstimate:
    device = resolve_device(job.device)
    dtype = str(resolve_dtype(job.dtype, device)).removeprefix("torch.")
    hyperparameters = job.current_stage.hyperparameters
    return estimate_memory(architecture, workload, hyperparameters, attempt, dtype, device)


def _take_sample(examples: Examples, kind: ExampleKind) -> Examples:
    """Take examples evenly spread over time, in whose order they are."""
    whole = getattr(examples, kind)
    return Examples(**{kind: whole[:: -(-len(whole) // SAMPLE_SIZE) or 1]})
