"""The estimate of a training as jobs and cycles keep it: memory, steps and time."""

from extractors.values import Value
from trainers.recovery.fallbacks import Attempt


class MemoryEstimate(Value):
    """Bytes at the peak, by their purpose."""

    runtime: int
    weights: int
    loading: int
    """The weights' file while it is read, if it is in another precision. The system reclaims these pages
    when it needs them."""
    adapter: int
    activations: int
    logits: int

    @property
    def needed(self) -> int:
        """Total bytes that the training needs."""
        return self.runtime + self.weights + self.adapter + self.activations + self.logits

    @property
    def total(self) -> int:
        """Peak of the process as the system reports it: when the weights are read, or in a step."""
        return max(self.needed, self.runtime + self.weights + self.loading)


class TrainingEstimate(Value):
    """Expected memory and time of a stage that is not stopped early."""

    attempt: Attempt
    memory: MemoryEstimate
    steps: int
    tokens: int
    """Tokens over all epochs."""
    tokens_per_second: float | None
    """Speed of the first steps; None if there were none."""
    seconds: float | None
    """Time from the loaded model to the last step; None without a speed."""
