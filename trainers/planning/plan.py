"""A plan: the methods, hyperparameters and resources chosen for a snapshot, with the reason."""

from collections.abc import Callable
from typing import Literal

from pydantic import Field

from extractors.values import Value, content_id
from trainers.planning.hyperparameters import Hyperparameters, Method

ExampleKind = Literal["sft", "pairs", "votes", "triplets", "trajectories"]
"""A kind of examples: the field of `extractors.examples.types.Examples` that holds them."""
Quantization = Literal["nf4"]
"""How the weights of a base are held in 4 bits (see `trainers.models.quantization`)."""


class ReplayMix(Value):
    """Examples that the base model wrote itself, which a training learns beside the target's."""

    examples: int
    digest: str
    """Their content id."""


class TrainingStage(Value):
    """One training of a plan; the next stage continues with its adapter."""

    method: Method
    data: ExampleKind
    hyperparameters: Hyperparameters
    replay: ReplayMix | None = None
    """What is mixed in against forgetting; None: nothing."""


class Contender(Value):
    """One way to train on a snapshot."""

    name: str
    """Name of its rule."""
    stages: tuple[TrainingStage, ...] = Field(min_length=1)
    start_version: str | None = None
    """As `Plan.start_version`."""
    reason: str
    """In words, with the counts and thresholds that led here."""


class Plan(Value):
    """The trainings that a snapshot gets, and the reason for them."""

    name: str = ""
    """Name of the rule that the stages come from."""
    stages: tuple[TrainingStage, ...] = Field(min_length=1)
    reason: str
    """In words, with the counts and thresholds that led here."""
    challengers: tuple[Contender, ...] = ()
    """Other ways to train, which must beat these stages in a race; the most promising first."""
    race_cost: float | None = None
    """Most seconds of the race, as a multiple of those of the stages alone; None without challengers."""
    no_race: str = ""
    """Why the stages have no challengers, in words."""
    raced: bool = False
    """The stages have won a race."""
    no_replay: str = ""
    """Why nothing is mixed in that the base wrote itself, in words; empty where it is, or is not wanted."""
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

    def change_stages(self, change: Callable[[TrainingStage], TrainingStage]) -> "Plan":
        """Return the same plan with `change` applied to every stage, those of the challengers included."""
        challengers = tuple(
            each.model_copy(update={"stages": tuple(map(change, each.stages))}) for each in self.challengers
        )
        stages = tuple(map(change, self.stages))
        return self.model_copy(update={"stages": stages, "challengers": challengers})

    @property
    def default(self) -> Contender:
        """The plan's own stages as a contender."""
        return Contender(
            name=self.name, stages=self.stages, start_version=self.start_version, reason=self.reason
        )

    @property
    def winner(self) -> str:
        """Name of the contender that won the race; empty where there was none, or it has not ended."""
        return self.name if self.raced else ""

    def choose(self, contender: Contender) -> "Plan":
        """Return the plan that trains `contender` alone."""
        own = {name: getattr(contender, name) for name in Contender.model_fields}
        return self.model_copy(update={**own, "challengers": (), "race_cost": None, "no_race": ""})

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
