"""A plan: the method, hyperparameters and resources chosen for a snapshot, with the reason."""

from typing import Literal

from pydantic import Field

from extractors.values import Value, content_id

Method = Literal["sft"]


class Hyperparameters(Value):
    """Everything that shapes the adapter, apart from data and base."""

    epochs: float = Field(3.0, gt=0)
    learning_rate: float = Field(2e-3, gt=0)
    batch_size: int = Field(8, ge=1)
    gradient_accumulation: int = Field(1, ge=1)
    lora_rank: int = Field(16, ge=1)
    lora_alpha: int = Field(32, ge=1)
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    warmup_share: float = Field(0.05, ge=0, lt=1)
    """Share of the steps over which the learning rate rises."""
    evaluations_per_epoch: int = Field(2, ge=1)
    patience: int = Field(3, ge=1)
    """Evaluations without improvement after which training stops."""
    max_length: int = Field(1024, ge=16)
    """Longest example in tokens; longer ones are left out and counted."""
    seed: int = 0


class Plan(Value):
    """What will be trained, and why."""

    method: Method
    reason: str
    """In words, with the counts and thresholds that led here."""
    snapshot_id: str
    base_model: str
    """Hub id or path."""
    base_digest: str
    hyperparameters: Hyperparameters
    prefix_shared: bool = True
    """Train examples that begin alike in one sequence, where that is exact."""

    @property
    def id(self) -> str:
        return content_id(self.model_dump(mode="json"))


