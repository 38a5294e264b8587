"""What a training child is asked to do, and what it leaves."""

from extractors.values import Value
from trainers.estimate.memory_and_time import TrainingEstimate
from trainers.models.base_model import Device, Dtype
from trainers.planning.hyperparameters import Method
from trainers.planning.limits import Limits
from trainers.planning.plan import Plan, Quantization, TrainingStage

ADAPTER = "adapter"
"""Folder of the adapter in the run's folder."""


class TrainingJob(Value):
    """What a training child is asked to do."""

    plan: Plan
    stage: int = 0
    """Index in the plan's stages of the one to train."""
    snapshot: str
    """Folder of the snapshot."""
    start_adapter: str | None = None
    """Folder of the adapter that the stage before made; this one goes on from it."""
    limits: Limits = Limits()
    """What a plan's stages may take together; when it is up, the best checkpoint so far is the result."""
    spent: float = 0.0
    """Seconds that the stages before took of it."""
    may_quantize: bool = True
    """Whether the base may be held in 4 bits where memory asks for it."""
    device: Device = "auto"
    dtype: Dtype = "auto"
    threads: int | None = None
    """CPU threads; None takes what torch would."""

    @property
    def chosen(self) -> TrainingStage:
        """The stage to train."""
        return self.plan.stages[self.stage]


class Validation(Value):
    """What the validation split says after so many steps; after 0, before any training."""

    step: int
    loss: float
    """The method's own: for SFT in nats a token."""
    figures: dict[str, float] = {}
    """SFT: `token_accuracy`. DPO: `reward_accuracy`, the share of pairs whose chosen answer gained more
    than the rejected one against the reference (0 at step 0, where neither has), and `reward_margin`.
    KTO: `liked_reward`, `disliked_reward` and their difference, `separation`."""


class TrainingMetrics(Value):
    """How the training went."""

    method: Method
    examples: int
    too_long: int = 0
    """Training examples left out because they exceed `max_length`."""
    refused: int = 0
    """Training examples left out because the chat template cannot express them."""
    tokens: int
    """Of all training examples, once."""
    label_tokens: int = 0
    """Those of them that are learned."""
    steps: int
    epochs: float | None = None
    """How often each example was seen."""
    train_loss: float
    """Mean over the steps since the last start, in the method's own unit."""
    validation: tuple[Validation, ...] = ()
    validated: int = 0
    """Validation examples, without those left out as too long or refused."""
    best_step: int
    """The step whose weights were kept."""
    prefix_shared: bool = False
    """Whether batches held once what their examples share."""
    batches_shared: int = 0
    """Those that did, since the last start; for DPO and KTO, of the policy."""
    batches_padded: int = 0
    """Those that did not: they had too little in common, or it would not be exact."""
    desirable_weight: float | None = None
    """KTO: how much a liked answer counts."""
    undesirable_weight: float | None = None
    """KTO: how much a disliked answer counts."""
    quantization: Quantization | None = None
    """How the base was held in the end."""
    recoveries: tuple[str, ...] = ()
    """What was done for lack of memory, after a divergence or when the time was up, in words."""
    device: str
    dtype: str
    seconds: float
    """In all, killed children's time up to their last checkpoint included."""
    tokens_per_second: float
    """In steps, as the examples hold them: what examples share counts for each."""
    peak_memory_bytes: int
    """Of the GPU where one is used, else of the process."""
    estimated: TrainingEstimate | None = None
    """What was expected after the first few steps; None where the base's size cannot be told."""


class TrainingResult(Value):
    """What a training child leaves."""

    adapter: str
    """Folder of the adapter, relative to the run's folder."""
    files: dict[str, str]
    """File name in it to SHA-256."""
    rank: int
    metrics: TrainingMetrics
