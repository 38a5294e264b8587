"""Supervised fine-tuning, of answers and of conversations: TRL's trainer on examples that are tokens."""

from typing import Any

from trl import SFTConfig, SFTTrainer

from trainers.planning.hyperparameters import Hyperparameters


def build_sft_trainer(arguments: dict[str, Any], hyperparameters: Hyperparameters, **rest: Any) -> SFTTrainer:  # noqa: ARG001
    """A trainer on `{"input_ids", "labels"}`; `rest` is what all of TRL's trainers take."""
    return SFTTrainer(args=SFTConfig(**arguments, max_length=None), **rest)
