"""What a training will take, told from its job: where on the memory ladder it begins, and its estimate.

A training begins on the first rung that is likely to fit, rather than fail its way down to it: on a CPU
the first failure is often the kernel's, which kills without a word.
"""

from pathlib import Path

from extractors.dataset.snapshot import read_snapshot
from extractors.examples.types import Examples
from trainers.batching.tokenise import LEAST_VOTES, check_learnable, tokenised
from trainers.batching.workload import Workload, measured
from trainers.estimate.architecture import Shape, read_shape
from trainers.estimate.memory_and_time import Estimate, Memory, estimate, estimate_memory, first_that_fits
from trainers.jobs.job import TrainingJob
from trainers.memory import free_memory
from trainers.models.base_model import BaseModelUnusable, Dtype, load_tokenizer, torch_device, torch_dtype
from trainers.models.quantization import why_not
from trainers.planning.hyperparameters import Hyperparameters
from trainers.planning.plan import Kind
from trainers.recovery.fallbacks import Attempt, MemoryRules, first_attempt

SAMPLE = 512
"""Examples that are looked at, at most."""
SHORT = 512
"""Tokens of a short example."""


def planned_attempt(job: TrainingJob) -> Attempt:
    """The training of a language model as its plan has it. Raises BaseModelUnusable."""
    on_cpu = torch_device(job.device) == "cpu"
    planned = first_attempt(job.chosen.hyperparameters, on_cpu=on_cpu, quantization=job.plan.quantization)
    return planned.model_copy(update={"micro_batch": max(planned.micro_batch, _least_batch(job))})


def memory_rules(job: TrainingJob) -> MemoryRules:
    """How far down the ladder it may go. Raises BaseModelUnusable."""
    may_quantize = job.may_quantize and why_not(torch_device(job.device)) is None
    return MemoryRules(least_micro_batch=_least_batch(job), may_quantize=may_quantize)


def _least_batch(job: TrainingJob) -> int:
    return LEAST_VOTES if job.chosen.method == "kto" else 1


def likely_to_fit(job: TrainingJob) -> tuple[Attempt, str]:
    """With which attempt the training of a language model should begin, and why.

    Raises BaseModelUnusable, SnapshotDamaged.
    """
    plan, chosen = job.plan, job.chosen
    first, rules = planned_attempt(job), memory_rules(job)
    try:
        shape = read_shape(plan.base_model)
    except BaseModelUnusable as unknown:
        return first, str(unknown)
    examples = _sample(read_snapshot(Path(job.snapshot)).train, chosen.data)
    sample = tokenised(load_tokenizer(plan.base_model), chosen.data, examples, chosen.hyperparameters)
    if not sample.features:
        return first, "no example can be learned"

    def memory_of(attempt: Attempt) -> Memory:
        widths = shape.widths if plan.prefix_shared else None
        load = measured(sample.features, 0, attempt.micro_batch, widths=widths)
        return _memory(job, shape, load, attempt)

    return first_that_fits(first, rules, memory_of, free_memory(torch_device(job.device)))


def counted(job: TrainingJob) -> Estimate | None:
    """What the training of a language model takes, time left open; None where its size cannot be told.

    Raises BaseModelUnusable, SnapshotDamaged, NothingToLearn.
    """
    attempt, _ = likely_to_fit(job)
    try:
        shape = read_shape(job.plan.base_model)
    except BaseModelUnusable:
        return None
    snapshot, tokenizer = read_snapshot(Path(job.snapshot)), load_tokenizer(job.plan.base_model)
    chosen = job.chosen
    train, validation = (
        tokenised(tokenizer, chosen.data, examples, chosen.hyperparameters)
        for examples in (snapshot.train, snapshot.validation)
    )
    check_learnable(train, chosen.hyperparameters.max_length)
    widths = shape.widths if job.plan.prefix_shared else None
    workload = measured(train.features, validation.tokens, attempt.micro_batch, widths=widths)
    return estimate(workload, chosen.hyperparameters, attempt, _memory(job, shape, workload, attempt), None)


def least_memory(base: str, lora_rank: int, *, dtype: Dtype, device: str, quantized: bool) -> Memory:
    """What any training of `base` takes: one short example at once. Raises BaseModelUnusable."""
    shape = read_shape(base)
    smallest = Workload(
        examples=1,
        tokens=SHORT,
        validation_tokens=0,
        largest_batch=SHORT,
        largest_mask=SHORT**2,
        most_labels=SHORT // 8,
    )
    attempt = Attempt(
        micro_batch=1, accumulation=1, checkpointing=True, quantization="nf4" if quantized else None
    )
    return estimate_memory(
        shape,
        smallest,
        Hyperparameters(lora_rank=lora_rank),
        attempt,
        str(torch_dtype(dtype, device)).removeprefix("torch."),
        device,
    )


def estimated(
    job: TrainingJob, attempt: Attempt, workload: Workload, tokens_per_second: float | None
) -> Estimate:
    """What the job takes with this attempt at the speed of its first steps, where there were any.

    Raises BaseModelUnusable where the base's size cannot be told.
    """
    memory = _memory(job, read_shape(job.plan.base_model), workload, attempt)
    return estimate(workload, job.chosen.hyperparameters, attempt, memory, tokens_per_second)


def _memory(job: TrainingJob, shape: Shape, workload: Workload, attempt: Attempt) -> Memory:
    device = torch_device(job.device)
    dtype = str(torch_dtype(job.dtype, device)).removeprefix("torch.")
    return estimate_memory(shape, workload, job.chosen.hyperparameters, attempt, dtype, device)


def _sample(examples: Examples, kind: Kind) -> Examples:
    """Evenly over time: they are in its order."""
    whole = getattr(examples, kind)
    return Examples(**{kind: whole[:: -(-len(whole) // SAMPLE) or 1]})
