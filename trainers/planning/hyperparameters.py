"""Hyperparameters of a training, chosen by the method, the size of the base model and the data.

`TABLE` is the choice as data, with a source for each row; `choose_hyperparameters` reads it.
"""

import math
import sys
from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError

from extractors.errors import LearndError
from extractors.values import Value

Method = Literal["sft", "dpo", "kto", "embedding"]
TripletLoss = Literal["in-batch negatives", "triplets"]
DpoLoss = Literal["sigmoid", "sigmoid+sft", "sigmoid_norm", "apo_zero"]
Preset = Literal["efficient", "quality"]
"""`efficient` needs little time and memory; `quality` takes about twice as long."""


class Hyperparameters(Value):
    """Everything that determines the adapter, apart from data and base model."""

    epochs: float = Field(3.0, gt=0)
    """Passes over the training examples."""
    learning_rate: float = Field(2e-3, gt=0)
    """Highest learning rate, to which the warm-up rises."""
    batch_size: int = Field(8, ge=1)
    """Examples in a batch."""
    gradient_accumulation: int = Field(1, ge=1)
    """Batches whose gradients make one step."""
    lora_rank: int = Field(16, ge=1)
    """Rank of the adapter's matrices: its capacity."""
    lora_alpha: int = Field(32, ge=1)
    """The adapter's output is scaled by alpha / rank."""
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the adapter's inputs that a training step drops."""
    warmup_share: float = Field(0.05, ge=0, lt=1)
    """Share of the steps over which the learning rate rises."""
    beta: float = Field(0.1, gt=0)
    """DPO and KTO: how strongly the policy is held to its reference."""
    dpo_loss: DpoLoss = "sigmoid"
    """DPO: the loss of a pair. `sigmoid+sft` also imitates the chosen answer, `sigmoid_norm` divides by the
    answers' lengths, and `apo_zero` raises the chosen and lowers the rejected answer, each for itself."""
    triplet_loss: TripletLoss | None = None
    """Embeddings: `in-batch negatives` takes the other documents of a batch as irrelevant, `triplets` only a
    triplet's own. None: as the triplets allow."""
    evaluations_per_epoch: int = Field(2, ge=1)
    """Validations in one pass."""
    patience: int = Field(3, ge=1)
    """Evaluations without improvement after which training stops."""
    max_length: int = Field(4096, ge=16)
    """Longest example in tokens, system prompt and tools included; longer ones are left out and counted."""
    lora_targets: tuple[str, ...] = ()
    """Names of the modules to adapt, as PEFT matches them; empty: all linear layers but the head."""
    seed: int = Field(0, ge=0, lt=2**32)
    """numpy takes 32 bits."""

    def count_steps(self, examples: int) -> int:
        """Return the optimiser steps of a training on a number of `examples`."""
        epoch = -(-examples // (self.batch_size * self.gradient_accumulation))
        return max(1, round(epoch * self.epochs))


class OverridesInvalid(LearndError):
    """The settings ask for hyperparameters that do not exist or have impossible values."""


class TableRow(Value):
    """Values for some methods and sizes of the base model; a later row overrides them."""

    methods: tuple[Method, ...] = ("sft", "dpo", "kto", "embedding")
    up_to_gb: float = math.inf
    """Upper bound on the size of the base's weights, in units of 10^9 bytes."""
    efficient: dict[str, float]
    quality: dict[str, float] = {}
    """Values that the quality preset sets differently."""
    source: str
    """The origin of the numbers: a paper, a documentation, or a measurement of ours."""


TABLE = (
    TableRow(
        efficient={"lora_rank": 16, "lora_alpha": 32},
        quality={"lora_rank": 64, "lora_alpha": 128},
        source="Every linear layer is adapted, and the rank is the adapter's capacity: 16 holds what a few "
        "hundred short answers say, 64 is the rank of QLoRA for instruction data (Schulman et al. 2025, "
        "LoRA Without Regret; Dettmers et al. 2023, appendix B). alpha / rank stays at 2 (Hu et al. 2021).",
    ),
    TableRow(
        efficient={"batch_size": 8, "warmup_share": 0.05},
        quality={"evaluations_per_epoch": 4},
        source="LoRA loses more than full fine-tuning from batches above 32 (Schulman et al. 2025); 8 is "
        "measured on a 135M model.",
    ),
    # SFT. The rates lie on LR = 5e-5 * 10 * (2000 / hidden size)^0.781, fitted on Llamas by the
    # tinker-cookbook (hyperparam_utils), times 1.5 for runs of about 100 steps (Schulman et al. 2025).
    TableRow(
        methods=("sft",),
        efficient={"epochs": 3, "learning_rate": 1e-4},
        quality={"epochs": 5},
        source="More than 13B: 1e-4 (Dettmers et al. 2023, QLoRA; its README).",
    ),
    TableRow(
        methods=("sft",),
        up_to_gb=30,
        efficient={"learning_rate": 2e-4},
        source="7B and 13B: 2e-4 (Dettmers et al. 2023).",
    ),
    TableRow(
        methods=("sft",),
        up_to_gb=8,
        efficient={"learning_rate": 5e-4},
        source="Hidden size of about 2000: 5e-4 by the fitted rule above.",
    ),
    TableRow(
        methods=("sft",),
        up_to_gb=1.5,
        efficient={"learning_rate": 2e-3},
        source="Measured on SmolLM2-135M (hidden size 576), routing: held-out accuracy 0.81 at 2e-3, "
        "0.30 at 2e-4; the fitted rule gives 1.3e-3 * 1.5.",
    ),
    # Preferences. A tenth of SFT's rate: the loss pulls two likelihoods apart and overshoots easily.
    TableRow(
        methods=("dpo", "kto"),
        efficient={"epochs": 2, "learning_rate": 1e-5, "beta": 0.1, "warmup_share": 0.1},
        quality={"epochs": 3},
        source="beta 0.1: Rafailov et al. 2023 (DPO), Ethayarajh et al. 2024 (KTO), TRL's default. Rate: ten "
        "times the 1e-6 that TRL has for full fine-tuning (Schulman et al. 2025). Warm-up 0.1: "
        "alignment-handbook's Zephyr recipe.",
    ),
    TableRow(
        methods=("dpo", "kto"),
        up_to_gb=30,
        efficient={"learning_rate": 2e-5},
        source="Twice that again, as for SFT; Zephyr's QLoRA recipe has 5e-6 for 61,000 pairs.",
    ),
    TableRow(
        methods=("dpo", "kto"),
        up_to_gb=8,
        efficient={"learning_rate": 5e-5},
        source="Between the rows above and below, as for SFT.",
    ),
    TableRow(
        methods=("dpo", "kto"),
        up_to_gb=1.5,
        efficient={"learning_rate": 2e-4},
        source="A tenth of the SFT rate that is measured on SmolLM2-135M.",
    ),
    TableRow(
        methods=("kto",),
        efficient={"gradient_accumulation": 2},
        source="TRL's KTO guide: at least 4 examples a batch, else the KL estimate is poor, and 16 to 128 a "
        "step; with little data rather more epochs than a higher rate.",
    ),
    TableRow(
        methods=("embedding",),
        efficient={"epochs": 3, "learning_rate": 2e-4, "batch_size": 32, "warmup_share": 0.1},
        quality={"epochs": 5, "batch_size": 64},
        source="sentence-transformers' LoRA example (rank 64, alpha 128, warm-up 0.1) has 2e-5 at batches of "
        "1024; ten times that for small batches. The other examples of a batch are the negatives, so more "
        "is better (its documentation of MultipleNegativesRankingLoss).",
    ),
)
"""The choice as data. All rows that match apply, from the first to the last; later ones override."""

TABLE_RANK = 16
"""The rank to which the table's learning rates belong. At another rank and the same alpha / rank, a rate
scales with 1 / sqrt(rank) (Kalajdzievski 2023, rsLoRA): four times the rank, half the rate."""
MIN_TRAINING_STEPS: dict[Preset, int] = {"efficient": 110, "quality": 220}
"""Optimiser steps that a training should have; with little data it gets more epochs. Measured on
SmolLM2-135M, routing; validation stops a training that no longer improves."""
MAX_EPOCHS: dict[Preset, int] = {"efficient": 10, "quality": 20}


def choose_hyperparameters(
    method: Method,
    examples: int,
    base_bytes: int,
    *,
    preset: Preset,
    overrides: Mapping[str, Any],
    max_lora_rank: int | None = None,
) -> Hyperparameters:
    """Choose the hyperparameters for training by `method` on a number of `examples`.

    `base_bytes` is the size of the base model's weights. `overrides` are hyperparameters by name and
    replace the table's values. The table's rank is limited to `max_lora_rank`. Raises OverridesInvalid
    for unknown names, impossible values, and a rank above `max_lora_rank`.
    """
    scaled = _scale_to_rank(_read_table(method, base_bytes, preset), overrides, max_lora_rank)
    chosen = scaled | dict(overrides)
    try:
        hyperparameters = Hyperparameters.model_validate(chosen)
    except ValidationError as wrong:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in wrong.errors())
        raise OverridesInvalid(
            f"hyperparameters: {problems}; there are: {', '.join(Hyperparameters.model_fields)}"
        ) from wrong
    if "epochs" in overrides:
        return hyperparameters
    return hyperparameters.model_copy(update={"epochs": _choose_epochs(hyperparameters, examples, preset)})


def _read_table(method: Method, base_bytes: int, preset: Preset) -> dict[str, Any]:
    chosen: dict[str, float] = {}
    for row in TABLE:
        if method in row.methods and base_bytes <= row.up_to_gb * 1e9:
            chosen |= row.efficient
            if preset == "quality":
                chosen |= row.quality
    return chosen


def _scale_to_rank(
    chosen: dict[str, Any], overrides: Mapping[str, Any], max_lora_rank: int | None
) -> dict[str, Any]:
    """Return the table's choice at the final rank: alpha in proportion, the rate as TABLE_RANK says."""
    wanted = overrides.get("lora_rank")
    if wanted is None:
        rank = min(int(chosen["lora_rank"]), max_lora_rank or sys.maxsize)
    elif not isinstance(wanted, int) or wanted < 1:
        return chosen  # the validation refuses it, together with everything else that is wrong
    elif max_lora_rank and wanted > max_lora_rank:
        raise OverridesInvalid(
            f"hyperparameters: lora_rank = {wanted} is above training.max_lora_rank = {max_lora_rank}, the "
            "limit of the replicas (vLLM's --max-lora-rank); raise it there and here, or lower the rank"
        )
    else:
        rank = wanted
    return chosen | {
        "lora_rank": rank,
        "lora_alpha": max(1, int(chosen["lora_alpha"] * rank / chosen["lora_rank"])),
        "learning_rate": chosen["learning_rate"] * math.sqrt(TABLE_RANK / rank),
    }


def _choose_epochs(hyperparameters: Hyperparameters, examples: int, preset: Preset) -> float:
    """Return the table's epochs, or more where the data is too little for enough steps."""
    step_size = hyperparameters.batch_size * hyperparameters.gradient_accumulation
    for_steps = math.ceil(MIN_TRAINING_STEPS[preset] * step_size / max(1, examples))
    return min(MAX_EPOCHS[preset], max(hyperparameters.epochs, for_steps))


def select_overrides(method: Method, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings' hyperparameters for `method`: its own ones override those for all methods."""
    for_all = {name: value for name, value in overrides.items() if name not in get_args(Method)}
    return for_all | dict(overrides.get(method, {}))
