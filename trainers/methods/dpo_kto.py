"""Learning from preferences: TRL's DPO and KTO trainers on tokenised examples.

No second model is held: for a base and a new adapter, TRL's reference is the policy without its
adapter; for an adapter that was trained before, TRL keeps a frozen copy of it, named `ref`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from extractors.values import Value
from trainers.planning.hyperparameters import DpoLoss, Hyperparameters

BALANCED = (1.0, 4 / 3)
"""Range for the weight of all liked answers divided by that of all disliked ones: equation 8 of KTO
(Ethayarajh et al. 2024, arXiv 2402.01306), which TRL's documentation repeats."""


LOSSES: Mapping[DpoLoss, tuple[list[str], list[float]]] = {
    "sigmoid": (["sigmoid"], [1.0]),
    "sigmoid+sft": (["sigmoid", "sft"], [1.0, 1.0]),
    "sigmoid_norm": (["sigmoid_norm"], [1.0]),
    "apo_zero": (["apo_zero"], [1.0]),
}
"""TRL's loss types and their weights. SFT's term, the mean over the chosen answer's tokens, has the weight 1
of Pang et al. 2024 (arXiv 2404.19733); APO is D'Oosterlinck et al. 2024 (arXiv 2408.06266)."""


class VoteWeights(Value):
    """Weights of a liked and a disliked answer in the loss."""

    desirable: float = 1.0
    undesirable: float = 1.0


class PairTrainer(DPOTrainer):
    """TRL's DPO trainer on `{"prompt_ids", "chosen_ids", "rejected_ids"}`."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset


class VoteTrainer(KTOTrainer):
    """TRL's KTO trainer on `{"prompt_ids", "completion_ids", "KL_completion_ids", "label"}`, in order."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset


def build_dpo_trainer(arguments: dict[str, Any], hyperparameters: Hyperparameters, **rest: Any) -> DPOTrainer:
    """Build a trainer for DPO (Rafailov et al. 2023); `rest` are arguments of all TRL trainers."""
    types, weights = LOSSES[hyperparameters.dpo_loss]
    own = {"loss_type": types, "loss_weights": weights, "beta": hyperparameters.beta, "max_length": None}
    return PairTrainer(args=DPOConfig(**arguments, **own), **rest)


def build_kto_trainer(arguments: dict[str, Any], hyperparameters: Hyperparameters, **rest: Any) -> KTOTrainer:
    """Build a trainer for KTO (Ethayarajh et al. 2024); `rest` are arguments of all TRL trainers."""
    weights = balance_votes(rest["train_dataset"]["label"])
    own = {
        "beta": hyperparameters.beta,
        "desirable_weight": weights.desirable,
        "undesirable_weight": weights.undesirable,
        "max_length": None,
    }
    return VoteTrainer(args=KTOConfig(**arguments, **own), **rest)


def balance_votes(desirable: Iterable[bool]) -> VoteWeights:
    """Return weights that balance the two sides: the rarer one counts more, unless they are balanced."""
    counts = Counter(map(bool, desirable))
    liked, disliked = counts[True], counts[False]
    if not liked or not disliked or BALANCED[0] <= liked / disliked <= BALANCED[1]:
        return VoteWeights()
    if liked < disliked:
        return VoteWeights(desirable=disliked / liked)
    return VoteWeights(undesirable=liked / disliked)
