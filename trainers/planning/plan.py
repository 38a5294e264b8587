"""A plan: the methods, hyperparameters and resources chosen for a snapshot, with the reason."""

from typing import Literal

from pydantic import Field

from extractors.values import Value, content_id
from trainers.planning.hyperparameters import Hyperparameters, Method

ExampleKind = Literal["sft", "pairs", "votes", "triplets", "trajectories"]
"""A kind of examples: the field of `extractors.examples.types.Examples` that holds them."""


class TrainingStage(Value):
    """One training; the next stage goes on from its adapter."""

    method: Method
    data: ExampleKind
    hyperparameters: Hyperparameters


class Plan(Value):
    """What will be trained, and why."""

    stages: tuple[TrainingStage, ...] = Field(min_length=1)
    reason: str
    """In words, with the counts and thresholds that led here."""
    counts: dict[str, int] = {}
    """Training examples there were, by kind."""
    thresholds: dict[str, int] = {}
    """How many of each kind its method needs."""
    snapshot_id: str
    base_model: str
    """Hub id or path."""
    base_digest: str
    start_version: str | None = None
    """The live version from whose adapter the first stage goes on; None: from the base, with a fresh one."""
    settings_id: str = ""
    """Digest of the settings that led here: the same data and settings would teach the same again."""
    prefix_shared: bool = True
    """Train examples that begin alike in one sequence, where that is exact."""
    quantization: Literal["nf4"] | None = None
    """Hold the base in 4 bits while training (QLoRA); it is evaluated and served as it is."""

    @property
    def id(self) -> str:
        return content_id(self.model_dump(mode="json"))

    def seeded(self, run: int) -> "Plan":
        """The same plan with other seeds, so many further on."""
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
        """All stages train one adapter, so they share its shape."""
        return self.stages[0].hyperparameters.lora_rank


class Skip(Value):
    """Nothing will be trained this time."""

    reason: str
    """The counts there are and those it takes."""


Quantization = Literal["nf4"]
