"""What a training will take, told from its job: where on the memory ladder it begins, and its estimate.

A training begins on the first rung that is likely to fit, rather than fail its way down to it: on a CPU
the first failure is often the kernel's, which kills without a word.
"""

from pathlib import Path

from extractors.examples import Examples
from extractors.snapshot import read_snapshot
from trainers.base_model import BaseModelUnusable, load_tokenizer, torch_device, torch_dtype
from trainers.estimate import Estimate, Memory, estimate, estimate_memory, first_that_fits
from trainers.job import TrainingJob
from trainers.ladders import Attempt, MemoryRules
from trainers.memory import free_memory
from trainers.plan import Kind
from trainers.shape import Shape, read_shape
from trainers.training_set import tokenised
from trainers.workload import Workload, measured

SAMPLE = 512
"""Examples that are looked at, at most."""


def likely_to_fit(job: TrainingJob, first: Attempt, rules: MemoryRules) -> tuple[Attempt, str]:
    """With which attempt the training of a language model should begin, and why.

    Raises BaseModelUnusable, SnapshotDamaged.
    """
    plan, chosen = job.plan, job.chosen
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


def estimated(job: TrainingJob, attempt: Attempt, workload: Workload, tokens_per_second: float) -> Estimate:
    """What the job takes with this attempt at the speed of its first steps.

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
