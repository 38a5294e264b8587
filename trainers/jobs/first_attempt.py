"""What a training will take, told from its job: where on the memory ladder it begins, and its estimate.

A training begins on the first rung that is likely to fit, rather than fail its way down to it: on a CPU
the first failure is often the kernel's, which kills without a word.
"""

from pathlib import Path

from extractors.dataset.snapshot import read_snapshot
from extractors.examples.types import Examples
from trainers.batching.tokenise import MIN_VOTES, check_learnable, tokenise
from trainers.batching.workload import Workload, measure_workload
from trainers.estimate.architecture import Architecture, read_architecture
from trainers.estimate.memory_and_time import (
    MemoryEstimate,
    TrainingEstimate,
    estimate_memory,
    estimate_training,
    find_fitting_attempt,
)
from trainers.jobs.job import TrainingJob
from trainers.memory import measure_free_memory
from trainers.models.base_model import BaseModelUnusable, Dtype, load_tokenizer, resolve_device, resolve_dtype
from trainers.models.quantization import find_quantization_obstacle
from trainers.planning.hyperparameters import Hyperparameters
from trainers.planning.plan import ExampleKind
from trainers.recovery.fallbacks import Attempt, MemoryRules, build_first_attempt

SAMPLE_SIZE = 512
"""Examples that are looked at, at most."""
SHORT_EXAMPLE = 512
"""Tokens of a short example."""


def plan_attempt(job: TrainingJob) -> Attempt:
    """The training of a language model as its plan has it. Raises BaseModelUnusable."""
    on_cpu = resolve_device(job.device) == "cpu"
    planned = build_first_attempt(
        job.chosen.hyperparameters, on_cpu=on_cpu, quantization=job.plan.quantization
    )
    return planned.model_copy(update={"micro_batch": max(planned.micro_batch, _find_min_micro_batch(job))})


def build_memory_rules(job: TrainingJob) -> MemoryRules:
    """How far down the ladder it may go. Raises BaseModelUnusable."""
    may_quantize = job.may_quantize and find_quantization_obstacle(resolve_device(job.device)) is None
    return MemoryRules(least_micro_batch=_find_min_micro_batch(job), may_quantize=may_quantize)


def _find_min_micro_batch(job: TrainingJob) -> int:
    return MIN_VOTES if job.chosen.method == "kto" else 1


def choose_first_attempt(job: TrainingJob) -> tuple[Attempt, str]:
    """With which attempt the training of a language model should begin, and why.

    Raises BaseModelUnusable, SnapshotDamaged.
    """
    plan, chosen = job.plan, job.chosen
    first, rules = plan_attempt(job), build_memory_rules(job)
    try:
        shape = read_architecture(plan.base_model)
    except BaseModelUnusable as unknown:
        return first, str(unknown)
    examples = _take_sample(read_snapshot(Path(job.snapshot)).train, chosen.data)
    sample = tokenise(load_tokenizer(plan.base_model), chosen.data, examples, chosen.hyperparameters)
    if not sample.features:
        return first, "no example can be learned"

    def memory_of(attempt: Attempt) -> MemoryEstimate:
        widths = shape.widths if plan.prefix_shared else None
        load = measure_workload(sample.features, 0, attempt.micro_batch, widths=widths)
        return _estimate_memory(job, shape, load, attempt)

    return find_fitting_attempt(first, rules, memory_of, measure_free_memory(resolve_device(job.device)))


def estimate_by_count(job: TrainingJob) -> TrainingEstimate | None:
    """What the training of a language model takes, time left open; None where its size cannot be told.

    Raises BaseModelUnusable, SnapshotDamaged, NothingToLearn.
    """
    attempt, _ = choose_first_attempt(job)
    try:
        shape = read_architecture(job.plan.base_model)
    except BaseModelUnusable:
        return None
    snapshot, tokenizer = read_snapshot(Path(job.snapshot)), load_tokenizer(job.plan.base_model)
    chosen = job.chosen
    train, validation = (
        tokenise(tokenizer, chosen.data, examples, chosen.hyperparameters)
        for examples in (snapshot.train, snapshot.validation)
    )
    check_learnable(train, chosen.hyperparameters.max_length)
    widths = shape.widths if job.plan.prefix_shared else None
    workload = measure_workload(train.features, validation.tokens, attempt.micro_batch, widths=widths)
    return estimate_training(
        workload, chosen.hyperparameters, attempt, _estimate_memory(job, shape, workload, attempt), None
    )


def estimate_least_memory(
    base: str, lora_rank: int, *, dtype: Dtype, device: str, quantized: bool
) -> MemoryEstimate:
    """What any training of `base` takes: one short example at once. Raises BaseModelUnusable."""
    shape = read_architecture(base)
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
        shape,
        smallest,
        Hyperparameters(lora_rank=lora_rank),
        attempt,
        str(resolve_dtype(dtype, device)).removeprefix("torch."),
        device,
    )


def estimate_attempt(
    job: TrainingJob, attempt: Attempt, workload: Workload, tokens_per_second: float | None
) -> TrainingEstimate:
    """What the job takes with this attempt at the speed of its first steps, where there were any.

    Raises BaseModelUnusable where the base's size cannot be told.
    """
    memory = _estimate_memory(job, read_architecture(job.plan.base_model), workload, attempt)
    return estimate_training(workload, job.chosen.hyperparameters, attempt, memory, tokens_per_second)


def _estimate_memory(
    job: TrainingJob, shape: Architecture, workload: Workload, attempt: Attempt
) -> MemoryEstimate:
    device = resolve_device(job.device)
    dtype = str(resolve_dtype(job.dtype, device)).removeprefix("torch.")
    return estimate_memory(shape, workload, job.chosen.hyperparameters, attempt, dtype, device)


def _take_sample(examples: Examples, kind: ExampleKind) -> Examples:
    """Evenly over time: they are in its order."""
    whole = getattr(examples, kind)
    return Examples(**{kind: whole[:: -(-len(whole) // SAMPLE_SIZE) or 1]})
