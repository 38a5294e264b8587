"""What a training will take, before it begins: memory, time and cost; and how right that was afterwards.

Memory is counted (see `estimate_memory`), time is a measured speed times the tokens, cost is time times
a price from the settings.
"""

from pathlib import Path
from typing import Literal

from extractors.values import Value
from trainers.hyperparameters import Hyperparameters
from trainers.ladders import Attempt
from trainers.quantized import BITS_PER_WEIGHT
from trainers.shape import Shape
from trainers.workload import Workload

TRAINED_BYTES = 4 + 4 + 8
"""For each weight of the adapter: itself, its gradient, and Adam's two moments, in float32 (Rajbhandari
et al. 2020, ZeRO, section 3.1)."""
LOGIT_COPIES = 4
"""The float32 logits of a token to learn, what log-probability and entropy take, and the gradient."""
RUNTIME_BYTES = {"cpu": 850_000_000, "cuda": 0}
"""What a training process holds besides: Python, torch and the other libraries, their threads' buffers.
Measured on Linux with torch 2.13. A GPU's context is not in what torch counts."""
RESERVE = 0.1
"""Share of the free memory that a training must leave: allocators fragment."""
VALIDATION_SHARE = 0.5
"""Of a training step's time that a validation takes for as many tokens: with a frozen base, the backward pass
computes as much as the forward pass (2N of the 2N + 4N operations a token of Kaplan et al. 2020)."""


class Memory(Value):
    """Bytes at the peak, by what they are for."""

    runtime: int
    weights: int
    loading: int
    """While the weights are read: the file, where it is in another precision. The system takes these pages
    back when it needs them."""
    adapter: int
    activations: int
    logits: int

    @property
    def needed(self) -> int:
        """What there must be."""
        return self.runtime + self.weights + self.adapter + self.activations + self.logits

    @property
    def total(self) -> int:
        """What the process is seen to hold at its peak: when the weights are read, or in a step."""
        return max(self.needed, self.runtime + self.weights + self.loading)


class Throughput(Value):
    """A measured speed."""

    tokens_per_second: float
    """Tokens of all rows in training steps."""
    source: str
    """What it was measured on."""


class Prices(Value):
    """What the machine costs."""

    per_hour: float
    currency: str


class Estimate(Value):
    """What a stage will take."""

    memory: Memory
    device_bytes: int | None
    """Free on the device; None where it is not known."""
    fits: bool | None
    steps: int
    tokens: int
    """Over all epochs, early stopping left aside."""
    throughput: Throughput
    seconds: float
    cost: float | None
    """In `currency`; None without a price."""
    currency: str | None


class Comparison(Value):
    """Estimated over measured; 1 is right, 2 is twice too much."""

    memory: float
    seconds: float
    steps: float


def estimate_memory(
    shape: Shape,
    workload: Workload,
    hyperparameters: Hyperparameters,
    attempt: Attempt,
    dtype: str,
    device: str,
) -> Memory:
    """Peak memory of a training with LoRA on all linear layers.

    Activations are what autograd keeps of a Llama-like layer for each token (after Korthikanti et al.
    2022, section 4, with LoRA in place of the full weights' gradients), in elements: 2h for each norm,
    A for queries, keys and values (repeated for grouped heads) and the attention's output, 4i for a
    gated MLP, and a rank for each matrix. In bfloat16, the norms' are float32, and a copy of a
    matrix's inputs is cast for LoRA.
    """
    item = {"float32": 4, "bfloat16": 2}[dtype]
    quantised = shape.linear_parameters if attempt.quantization else 0
    weights = (shape.parameters - quantised) * item + round(quantised * BITS_PER_WEIGHT / 8)
    largest = max((outputs * inputs for outputs, inputs in shape.linear), default=0)
    as_on_disk = not quantised and abs(shape.file_bytes / (shape.parameters * item) - 1) < 0.01
    return Memory(
        runtime=RUNTIME_BYTES[device],
        weights=weights,
        loading=0 if as_on_disk or device != "cpu" else shape.file_bytes,
        adapter=shape.adapter_parameters(hyperparameters.lora_rank) * TRAINED_BYTES,
        activations=_activations(shape, workload, hyperparameters.lora_rank, item, attempt.checkpointing)
        # A matrix in 4 bits is unpacked for its product.
        + (largest * item if quantised else 0),
        logits=workload.most_labels * shape.vocabulary * 4 * LOGIT_COPIES,
    )


def _activations(shape: Shape, workload: Workload, rank: int, item: int, checkpointing: bool) -> int:
    tokens = workload.largest_batch
    matrices = len(shape.linear) // shape.layers
    mlp = (4 if shape.gated else 2) * shape.intermediate
    elements = 4 * shape.attention + mlp + matrices * rank
    if item == 4:
        layer = tokens * (elements + 4 * shape.hidden) * 4
    else:
        layer = tokens * (elements * 2 + shape.hidden * (2 * 4 + 6 * 2))
    mask = tokens * tokens * item
    if checkpointing:
        return layer + mask + shape.layers * tokens * shape.hidden * item
    return layer * shape.layers + mask


def fits(memory: Memory, device_bytes: int) -> bool:
    """Whether it is likely to fit, with a reserve."""
    return memory.needed <= device_bytes * (1 - RESERVE)


def choose_quantization(
    in_full: Memory, in_four_bits: Memory, device_bytes: int
) -> tuple[Literal["nf4"] | None, str]:
    """Whether memory asks for QLoRA, and why: the whole base does not fit, and in 4 bits it does."""
    need, has = f"{in_full.needed / 2**30:.1f} GiB", f"{device_bytes / 2**30:.1f} GiB free"
    if fits(in_full, device_bytes):
        return None, f"about {need} are needed, {has}"
    smaller = f"{in_four_bits.needed / 2**30:.1f} GiB with the base in 4 bits"
    if fits(in_four_bits, device_bytes):
        return "nf4", f"about {need} would be needed, {has}: {smaller}"
    return None, f"about {need} would be needed, {smaller}, {has}: smaller batches will be tried"


def estimate(
    workload: Workload,
    hyperparameters: Hyperparameters,
    memory: Memory,
    throughput: Throughput,
    *,
    device_bytes: int | None = None,
    prices: Prices | None = None,
) -> Estimate:
    """What a training takes that is not stopped early; its time begins when the model is loaded."""
    a_step = hyperparameters.batch_size * hyperparameters.gradient_accumulation
    steps = max(1, round(-(-workload.examples // a_step) * hyperparameters.epochs))
    tokens = round(workload.tokens * hyperparameters.epochs)
    validations = hyperparameters.evaluations_per_epoch * hyperparameters.epochs + 1
    validating = workload.validation_tokens * validations * VALIDATION_SHARE
    seconds = (tokens + validating) / throughput.tokens_per_second
    return Estimate(
        memory=memory,
        device_bytes=device_bytes,
        fits=None if device_bytes is None else fits(memory, device_bytes),
        steps=steps,
        tokens=tokens,
        throughput=throughput,
        seconds=seconds,
        cost=prices.per_hour * seconds / 3600 if prices else None,
        currency=prices.currency if prices else None,
    )


def compared(estimated: Estimate, *, memory_bytes: int, seconds: float, steps: int) -> Comparison:
    """How right an estimate was, with what was measured."""
    return Comparison(
        memory=estimated.memory.total / memory_bytes,
        seconds=estimated.seconds / seconds,
        steps=estimated.steps / steps,
    )


def free_memory(device: str) -> int:
    """Bytes that a training could take now, on the GPU or of the machine (and its container)."""
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[0])
    import psutil

    return int(min(psutil.virtual_memory().available, _container_memory()))


def _container_memory() -> float:
    """What the control group has left (Linux, version 2); without a limit, infinite."""
    group = Path("/sys/fs/cgroup")
    try:
        most, now = (group / "memory.max").read_text().strip(), (group / "memory.current").read_text()
    except OSError:
        return float("inf")
    return float("inf") if most == "max" else max(0.0, float(most) - float(now))
