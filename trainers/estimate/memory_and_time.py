"""Estimates of a training's memory and time, before it begins.

Memory is counted (see `estimate_memory`); time is a measured speed times the tokens.
"""

from collections.abc import Callable, Iterator

from trainers.batching.workload import Workload
from trainers.estimate.architecture import Architecture
from trainers.estimate.estimates import MemoryEstimate, TrainingEstimate
from trainers.models.quantization import BITS_PER_WEIGHT
from trainers.planning.hyperparameters import Hyperparameters
from trainers.recovery.fallbacks import Attempt, MemoryRules, reduce_memory

TRAINED_BYTES = 4 + 4 + 8
"""Bytes for each weight of the adapter: itself, its gradient, and Adam's two moments, in float32
(Rajbhandari et al. 2020, ZeRO, section 3.1)."""
LOGIT_COPIES = 4
"""Arrays of a learned token's logits in float32: themselves, those for log-probability and entropy, and the
gradient."""
LOGIT_TILE = (4096, 32768)
"""Labels and words of the vocabulary that TRL's head holds at once on a GPU (kernels/chunked_logprob.py)."""
RUNTIME_BYTES = {"cpu": 850_000_000, "cuda": 0}
"""Memory that a training process needs besides: Python, torch and the other libraries, their threads'
buffers. Measured on Linux with torch 2.13. A GPU's context is not part of what torch counts."""
RESERVE = 0.1
"""Share of the free memory that a training must leave: allocators fragment."""
VALIDATION_SHARE = 0.5
"""Share of a training step's time that a validation of as many tokens takes: with a frozen base, the backward
pass computes as much as the forward pass (2N of the 2N + 4N operations a token of Kaplan et al. 2020)."""


def estimate_memory(
    architecture: Architecture,
    workload: Workload,
    hyperparameters: Hyperparameters,
    attempt: Attempt,
    dtype: str,
    device: str,
) -> MemoryEstimate:
    """Estimate the peak memory of a training with LoRA on all linear layers.

    `dtype` is `float32` or `bfloat16`, `device` is `cpu` or `cuda`. Activations are what autograd keeps
    of a Llama-like layer for each token (after Korthikanti et al. 2022, section 4, with LoRA in place of
    the full weights' gradients), in elements: 2h for each norm, A for each of queries, keys and values
    (repeated for grouped heads) and the attention's output, 4i for a gated MLP, and a rank for each
    matrix. In bfloat16, the norms' are float32, and a copy of a matrix's inputs is cast for LoRA.
    """
    item = {"float32": 4, "bfloat16": 2}[dtype]
    quantised = architecture.linear_parameters if attempt.quantization else 0
    weights = (architecture.parameters - quantised) * item + round(quantised * BITS_PER_WEIGHT / 8)
    largest = max((outputs * inputs for outputs, inputs in architecture.linear), default=0)
    as_on_disk = not quantised and abs(architecture.file_bytes / (architecture.parameters * item) - 1) < 0.01
    return MemoryEstimate(
        runtime=RUNTIME_BYTES[device],
        weights=weights,
        loading=0 if as_on_disk or device != "cpu" else architecture.file_bytes,
        adapter=architecture.count_adapter_parameters(hyperparameters.lora_rank) * TRAINED_BYTES,
        activations=_estimate_activations(
            architecture, workload, hyperparameters.lora_rank, item, attempt.checkpointing
        )
        # A matrix in 4 bits is unpacked for its product.
        + (largest * item if quantised else 0),
        logits=_estimate_logits(architecture, workload.most_labels, item, device),
    )


def _estimate_logits(architecture: Architecture, labels: int, item: int, device: str) -> int:
    """Estimate the logits; on a GPU, a tile of them and the labels' hidden states' gradient in float32."""
    if device == "cpu":
        return labels * architecture.vocabulary * 4 * LOGIT_COPIES
    most_labels, most_words = LOGIT_TILE
    tile = min(labels, most_labels) * min(architecture.vocabulary, most_words)
    return tile * item + labels * architecture.hidden * 4


def _estimate_activations(
    architecture: Architecture, workload: Workload, rank: int, item: int, checkpointing: bool
) -> int:
    tokens = workload.largest_batch
    matrices = len(architecture.linear) // architecture.layers
    mlp = (4 if architecture.gated else 2) * architecture.intermediate
    elements = 4 * architecture.attention + mlp + matrices * rank
    if item == 4:
        layer = tokens * (elements + 4 * architecture.hidden) * 4
    else:
        layer = tokens * (elements * 2 + architecture.hidden * (2 * 4 + 6 * 2))
    mask = workload.largest_mask * item
    if checkpointing:
        return layer + mask + architecture.layers * tokens * architecture.hidden * item
    return layer * architecture.layers + mask


def fits(memory: MemoryEstimate, device_bytes: int) -> bool:
    """Return True if `memory` is likely to fit into `device_bytes`, with a reserve."""
    return memory.needed <= device_bytes * (1 - RESERVE)


def find_fitting_attempt(
    first: Attempt, rules: MemoryRules, memory_of: Callable[[Attempt], MemoryEstimate], device_bytes: int
) -> tuple[Attempt, str]:
    """Find the first attempt, from `first` on, that is likely to fit; return it and the reason in words.

    The base is held in 4 bits only if nothing else fits, and then with the largest batch that does. If
    nothing at all seems to fit, the attempt that needs least is returned: an estimate may err.
    """
    whole = list(_list_rungs(first, rules.model_copy(update={"may_quantize": False})))
    packed = [rung.model_copy(update={"quantization": "nf4"}) for rung in whole if rules.may_quantize]
    has = f"{device_bytes / 2**30:.1f} GiB are free"
    rungs = [*whole, *packed]
    for rung in rungs:
        memory = memory_of(rung)
        if fits(memory, device_bytes):
            return rung, f"about {memory.needed / 2**30:.1f} GiB for {rung}, {has}"
    last = rungs[-1]
    needed = memory_of(last).needed / 2**30
    return last, f"about {needed:.1f} GiB for {last}, {has}, and nothing takes less: trying it"


def _list_rungs(first: Attempt, rules: MemoryRules) -> Iterator[Attempt]:
    attempt: Attempt | None = first
    while attempt is not None:
        yield attempt
        attempt = reduce_memory(attempt, rules)


def estimate_training(
    workload: Workload,
    hyperparameters: Hyperparameters,
    attempt: Attempt,
    memory: MemoryEstimate,
    tokens_per_second: float | None,
) -> TrainingEstimate:
    """Estimate a training that is not stopped early, at the speed of its first steps.

    `tokens_per_second` is None if no step was measured; then the estimate has no time.
    """
    step_size = attempt.micro_batch * attempt.accumulation
    tokens = round(workload.tokens * hyperparameters.epochs)
    validations = hyperparameters.evaluations_per_epoch * hyperparameters.epochs + 1
    validating = workload.validation_tokens * validations * VALIDATION_SHARE
    return TrainingEstimate(
        attempt=attempt,
        memory=memory,
        steps=max(1, round(-(-workload.examples // step_size) * hyperparameters.epochs)),
        tokens=tokens,
        tokens_per_second=tokens_per_second,
        seconds=(tokens + validating) / tokens_per_second if tokens_per_second else None,
    )
