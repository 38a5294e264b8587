"""A plan: the methods, hyperparameters and resources chosen for a snapshot, with the reason."""

from typing import Literal

from pydantic import Field

from extractors.values import Value, content_id
from trainers.planning.hyperparameters import Hyperparameters, Method

ExampleKind = Literal["sft", "pairs", "votes", "triplets", "trajectories"]
"""A kind of examples: the field of `extractors.examples.types.Examples` that holds them."""
Quantization = Literal["nf4"]
"""How the weights of a base are held in 4 bits (see `trainers.models.quantization`)."""


class TrainingStage(Value):
    """One training of a plan; the next stage continues with its adapter."""

    method: Method
    data: ExampleKind
    hyperparameters: Hyperparameters


class Plan(Value):
    """The trainings that a snapshot gets, and the reason for them."""

    stages: tuple[TrainingStage, ...] = Field(min_length=1)
    reason: str
    """In words, with the counts and thresholds that led here."""
    counts: dict[str, int] = {}
    """Training examples in the snapshot, by kind."""
    thresholds: dict[str, int] = {}
    """Examples of each kind that the methods need."""
    snapshot_id: str
    base_model: str
    """Hub id or path."""
    base_digest: str
    start_version: str | None = None
    """The live version whose adapter the first stage continues; None: it starts from the base, with a new
    adapter."""
    settings_id: str = ""
    """Digest of the settings that led here: the same data and settings would give the same training."""
    prefix_shared: bool = True
    """Compute the common beginning of examples once, where that gives the same gradients."""
    quantization: Quantization | None = None
    """Hold the base in 4 bits while training (QLoRA); it is evaluated and served in its own precision."""

    @property
    def id(self) -> str:
        return content_id(self.model_dump(mode="json"))

    def shift_seeds(self, run: int) -> "Plan":
        """Return the same plan with every seed raised by `run`."""
        stages = [
            stage.model_copy(
                update={
                    "hyperparameters": stage.hyperparameters.model_copy(
                        update={"seed": (stage.hyperparameters.seed + run) % 2**32}
                    )
                }
            )
            for stage in self.stages
        ]
        return self.model_copy(update={"stages": tuple(stages)})

    @property
    def method(self) -> str:
        """The stages' methods: `sft`, `dpo`, `sft+dpo`, …"""
        return "+".join(stage.method for stage in self.stages)

    @property
    def lora_rank(self) -> int:
        """The rank of the adapter, which all stages train."""
        return self.stages[0].hyperparameters.lora_rank


class Skip(Value):
    """Nothing will be trained this time."""

    reason: str
    """In words, with the counts that there are and those that are needed."""
