"""What to try when a training runs out of memory or diverges, and what it may take: pure decisions.

    out of memory   half the micro-batch and twice the accumulation, down to the least, or the next smaller
                    one of which a step holds a whole number; then activation checkpointing; then the base
                    in 4 bits; then nothing is left
    diverging       a tenth of the learning rate, twice; then nothing is left

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
    """The device has too little memory, whatever is tried."""


class TrainingDiverged(LearndError):
    """The loss is no number any more, or rises and rises."""

    def __init__(self, what: str, good_until: int = 0) -> None:
        super().__init__(what)
        self.good_until = good_until
        """The last step at which the loss was still good."""


class Attempt(Value):
    """How a stage is trained this time."""

    micro_batch: int = Field(ge=1)
    """Examples that are in memory at once."""
    accumulation: int = Field(ge=1)
    """Micro-batches whose gradients make one step."""
    checkpointing: bool
    """Compute activations again in the backward pass instead of keeping them."""
    quantization: Quantization | None
    rate_scale: float = 1.0
    """Times the learning rate of the plan."""
    rollbacks: int = 0

    def applied_to(self, hyperparameters: Hyperparameters) -> Hyperparameters:
        """The plan's hyperparameters as this attempt has them."""
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
    """As the plan has it. A GPU's memory is small beside its speed: there, activations are computed again."""
    return Attempt(
        micro_batch=hyperparameters.batch_size,
        accumulation=hyperparameters.gradient_accumulation,
        checkpointing=not on_cpu,
        quantization=quantization,
    )


class MemoryRules(Value):
    """How far the ladder goes down."""

    least_micro_batch: int = Field(1, ge=1)
    may_quantize: bool = True


def reduce_memory(attempt: Attempt, rules: MemoryRules) -> Attempt | None:
    """The next attempt, which needs less memory; None when there is none."""
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
    """The next attempt, at a tenth of the rate; None when that was tried often enough."""
    if attempt.rollbacks == MAX_ROLLBACKS:
        return None
    lower = {"rate_scale": attempt.rate_scale * RATE_AFTER_DIVERGENCE, "rollbacks": attempt.rollbacks + 1}
    return attempt.model_copy(update=lower)
