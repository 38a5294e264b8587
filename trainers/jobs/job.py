"""The job of a training child, and its result."""

from extractors.values import Value
from trainers.estimate.estimates import TrainingEstimate
from trainers.models.base_model import Device, Dtype
from trainers.planning.hyperparameters import Method
from trainers.planning.limits import Limits
from trainers.planning.plan import Plan, Quantization, TrainingStage

ADAPTER = "adapter"
"""Folder of the adapter in the run's folder."""


class TrainingJob(Value):
    """The job of a training child: one stage of a plan on a snapshot."""

    plan: Plan
    stage: int = 0
    """Index of the stage to train in the plan's stages."""
    snapshot: str
    """Folder of the snapshot."""
    replay: str | None = None
    """Folder of what the base wrote itself, for a stage that mixes some of it in."""
    start_adapter: str | None = None
    """Folder of the adapter that this training continues: of the stage before it, or of the live version."""
    limits: Limits = Limits()
    """Limits of the plan's stages together; when time is up, the best checkpoint so far is the result."""
    spent: float = 0.0
    """Seconds of these limits that earlier stages took."""
    may_quantize: bool = True
    """Allow the base to be held in 4 bits if memory is short."""
    device: Device = "auto"
    dtype: Dtype = "auto"
    threads: int | None = None
    """CPU threads; None leaves torch's own choice."""

    @property
    def current_stage(self) -> TrainingStage:
        """The stage to train."""
        return self.plan.stages[self.stage]


class Validation(Value):
    """A validation after a number of steps; after 0, it is the one before any training."""

    step: int
    loss: float
    """The method's own loss: for SFT in nats a token."""
    figures: dict[str, float] = {}
    """SFT: `token_accuracy`. DPO: `reward_accuracy`, the share of pairs whose chosen answer gained more
    than the rejected one against the reference (0 at step 0, where neither has), and `reward_margin`.
    KTO: `liked_reward`, `disliked_reward` and their difference, `separation`."""


class TrainingMetrics(Value):
    """Figures of a finished training."""

    method: Method
    examples: int
    """The target's own."""
    replay: int = 0
    """Examples beside them that the base wrote itself."""
    too_long: int = 0
    """Training examples left out because they exceed `max_length`."""
    refused: int = 0
    """Training examples left out because the chat template cannot express them."""
    tokens: int
    """Tokens of all training examples, once, with those that the base wrote."""
    label_tokens: int = 0
    """Tokens among them that are learned."""
    steps: int
    epochs: float | None = None
    """Number of times that each example was seen."""
    train_loss: float
    """Mean over the steps since the last start, in the method's own unit."""
    validation: tuple[Validation, ...] = ()
    validated: int = 0
    """Validation examples, without those left out as too long or refused."""
    best_step: int
    """The step whose weights were kept."""
    prefix_shared: bool = False
    """True if batches computed the common prefixes of their examples once."""
    batches_shared: int = 0
    """Batches that did, since the last start; for DPO and KTO, of the policy."""
    batches_padded: int = 0
    """Batches that did not: they had too little in common, or it would not be exact."""
    desirable_weight: float | None = None
    """KTO: weight of a liked answer."""
    undesirable_weight: float | None = None
    """KTO: weight of a disliked answer."""
    quantization: Quantization | None = None
    """Precision of the base in the last attempt; None: its own."""
    recoveries: tuple[str, ...] = ()
    """Each reaction to lack of memory, to a divergence or to the end of time, in words."""
    device: str
    dtype: str
    seconds: float
    """Time in all, with that of killed children up to their last checkpoint."""
    tokens_per_second: float
    """Speed of the steps; tokens that examples share count for each."""
    peak_memory_bytes: int
    """Peak of the GPU where one is used, else of the process."""
    estimated: TrainingEstimate | None = None
    """The estimate after the first few steps; None if the base's size is unknown."""


class TrainingResult(Value):
    """The result of a training child."""

    adapter: str
    """Folder of the adapter, relative to the run's folder."""
    files: dict[str, str]
    """Name of each of its files to SHA-256."""
    rank: int
    metrics: TrainingMetrics
