"""The next attempt of a training that runs out of memory or diverges: pure decisions.

    out of memory   half the micro-batch and twice the accumulation, or the next smaller micro-batch that
                    divides a step evenly, down to the least; then activation checkpointing; then the base
                    in 4 bits; then nothing is left
    divergence      a tenth of the learning rate, twice; then nothing is left

`guards.py` carries them out.
"""

from pydantic import Field

from extractors.errors import LearndError
from extractors.values import Value
from trainers.planning.hyperparameters import Hyperparameters
from trainers.planning.plan import Quantization

RATE_AFTER_DIVERGENCE = 0.1
MAX_ROLLBACKS = 2


class OutOfMemory(LearndError):
    """The device has too little memory for every attempt."""


class TrainingDiverged(LearndError):
    """The loss is not a number any more, or keeps rising."""

    def __init__(self, reason: str, good_until: int = 0) -> None:
        super().__init__(reason)
        self.good_until = good_until
        """The last step at which the loss was still good."""


class Attempt(Value):
    """The batches, precision and learning rate with which a stage is trained this time."""

    micro_batch: int = Field(ge=1)
    """Examples that are in memory at once."""
    accumulation: int = Field(ge=1)
    """Micro-batches whose gradients make one step."""
    checkpointing: bool
    """Compute activations again in the backward pass instead of keeping them."""
    quantization: Quantization | None
    rate_scale: float = 1.0
    """Factor on the learning rate of the plan."""
    rollbacks: int = 0

    def apply_to(self, hyperparameters: Hyperparameters) -> Hyperparameters:
        """Return the plan's `hyperparameters` with this attempt's batches and learning rate."""
        return hyperparameters.model_copy(
            update={
                "batch_size": self.micro_batch,
                "gradient_accumulation": self.accumulation,
                "learning_rate": hyperparameters.learning_rate * self.rate_scale,
            }
        )

    def __str__(self) -> str:
        parts = [f"{self.micro_batch} × {self.accumulation} examples a step"]
        parts += ["activation checkpointing"] * self.checkpointing
        parts += ["the base in 4 bits"] * (self.quantization is not None)
        parts += [f"{self.rate_scale:g} of the learning rate"] * (self.rate_scale != 1)
        return ", ".join(parts)


def build_first_attempt(
    hyperparameters: Hyperparameters, *, on_cpu: bool, quantization: Quantization | None = None
) -> Attempt:
    """Build the attempt that the plan asks for.

    Activations are recomputed on a GPU only, whose memory is small compared with its speed.
    """
    return Attempt(
        micro_batch=hyperparameters.batch_size,
        accumulation=hyperparameters.gradient_accumulation,
        checkpointing=not on_cpu,
        quantization=quantization,
    )


class MemoryRules(Value):
    """Limits on the ways in which a training may save memory."""

    least_micro_batch: int = Field(1, ge=1)
    may_quantize: bool = True


def reduce_memory(attempt: Attempt, rules: MemoryRules) -> Attempt | None:
    """Return the next attempt, which needs less memory; None if nothing is left to try."""
    examples = attempt.micro_batch * attempt.accumulation
    for smaller in range(attempt.micro_batch // 2, rules.least_micro_batch - 1, -1):
        if examples % smaller == 0:
            parts = {"micro_batch": smaller, "accumulation": examples // smaller}
            return attempt.model_copy(update=parts)
    if not attempt.checkpointing:
        return attempt.model_copy(update={"checkpointing": True})
    if attempt.quantization is None and rules.may_quantize:
        return attempt.model_copy(update={"quantization": "nf4"})
    return None


def lower_rate(attempt: Attempt) -> Attempt | None:
    """Return the next attempt, at a tenth of the learning rate; None after MAX_ROLLBACKS of them."""
    if attempt.rollbacks == MAX_ROLLBACKS:
        return None
    lower = {"rate_scale": attempt.rate_scale * RATE_AFTER_DIVERGENCE, "rollbacks": attempt.rollbacks + 1}
    return attempt.model_copy(update=lower)
