"""A plan: the method, hyperparameters and resources chosen for a snapshot, with the reason."""

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, ValidationError

from extractors.snapshot import Snapshot
from extractors.values import LearndError, Value, content_id

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
    lora_targets: tuple[str, ...] = ()
    """Names of the modules to adapt, as PEFT matches them; empty: all linear layers but the head."""
    seed: int = 0

    def within_rank(self, greatest: int) -> Self:
        """The same with a rank of at most `greatest`, alpha in proportion."""
        rank = min(self.lora_rank, greatest)
        return self.model_copy(
            update={"lora_rank": rank, "lora_alpha": max(1, self.lora_alpha * rank // self.lora_rank)}
        )


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


class Skip(Value):
    """Nothing will be trained this time."""

    reason: str
    """The counts there are and those it takes."""


class OverridesInvalid(LearndError):
    """The settings ask for hyperparameters that do not exist or cannot be."""


LEARNING_RATES = ((1.5, 2e-3), (8.0, 5e-4), (math.inf, 2e-4))
"""(weights of the base up to so many GB, learning rate). The first is measured on a 135M model
(0.81 against 0.30 at 2e-4); the others are the usual ones for LoRA on 1-3B and on larger models."""
LEAST_STEPS = 110
"""Optimiser steps that a training should have; where the data is little, it gets more epochs."""
MOST_EPOCHS = 10


def select_plan(
    snapshot: Snapshot,
    *,
    threshold: int,
    base_model: str,
    base_digest: str,
    base_bytes: int,
    max_lora_rank: int,
    overrides: Mapping[str, Any],
) -> Plan | Skip:
    """How to train on `snapshot`: SFT from `threshold` training examples on, else nothing.

    `base_bytes` is the size of the base model's weights, `max_lora_rank` what the replicas serve,
    `overrides` are hyperparameters by name. Raises OverridesInvalid.
    """
    count = len(snapshot.train)
    if count < threshold:
        return Skip(
            reason=f"{count} training examples, SFT needs {threshold} "
            f"(beside {len(snapshot.validation)} for validation and {len(snapshot.holdout)} held out); "
            "approve or correct more answers"
        )
    return Plan(
        method="sft",
        reason=f"SFT: {count} training examples, at least {threshold} are needed",
        snapshot_id=snapshot.id,
        base_model=base_model,
        base_digest=base_digest,
        hyperparameters=_hyperparameters(count, base_bytes, overrides).within_rank(max_lora_rank),
    )


def _hyperparameters(examples: int, base_bytes: int, overrides: Mapping[str, Any]) -> Hyperparameters:
    usual = Hyperparameters()
    chosen = {
        "learning_rate": next(rate for most, rate in LEARNING_RATES if base_bytes <= most * 1e9),
        "epochs": min(MOST_EPOCHS, max(usual.epochs, math.ceil(LEAST_STEPS * usual.batch_size / examples))),
    }
    try:
        return Hyperparameters.model_validate({**chosen, **overrides})
    except ValidationError as wrong:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in wrong.errors())
        raise OverridesInvalid(
            f"hyperparameters: {problems}; there are: {', '.join(Hyperparameters.model_fields)}"
        ) from wrong
