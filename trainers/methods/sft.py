"""Supervised fine-tuning on answers and on conversations: TRL's trainer on tokenised examples."""

from typing import Any

from trl import SFTConfig, SFTTrainer

from trainers.planning.hyperparameters import Hyperparameters


def build_sft_trainer(arguments: dict[str, Any], hyperparameters: Hyperparameters, **rest: Any) -> SFTTrainer:  # noqa: ARG001
    """Build a trainer on `{"input_ids", "labels"}`; `rest` are arguments of all TRL trainers."""
    return SFTTrainer(args=SFTConfig(**arguments, max_length=None), **rest)
