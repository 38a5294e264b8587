"""A low-rank adapter on a base model (Hu et al. 2021), and proof that it is one."""

from pathlib import Path
from typing import Any

from peft import LoraConfig, get_peft_model

from extractors.values import LearndError, file_digest
from trainers.plan import Hyperparameters

ADAPTER_FILES = frozenset({"adapter_config.json", "adapter_model.safetensors"})


class LoraMatchesNothing(LearndError):
    """The adapter would train nothing, or something else than low-rank matrices."""


def add_lora(model: Any, hyperparameters: Hyperparameters, base_model: str) -> Any:
    """`model` with a fresh trainable adapter on the plan's modules; all else is frozen.

    `base_model` is what the adapter says it belongs to. Raises LoraMatchesNothing.
    """
    targets = list(hyperparameters.lora_targets) or "all-linear"
    config = LoraConfig(
        r=hyperparameters.lora_rank,
        lora_alpha=hyperparameters.lora_alpha,
        lora_dropout=hyperparameters.lora_dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
        base_model_name_or_path=base_model,
    )
    advice = "set `lora_targets` in the target's hyperparameters to names of its linear layers"
    try:
        adapted = get_peft_model(model, config)
    except ValueError as refused:
        raise LoraMatchesNothing(
            f"LoRA on {targets} matches no module of {base_model} ({refused}); {advice}"
        ) from refused
    trainable = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    if not trainable or any("lora_" not in name for name in trainable):
        raise LoraMatchesNothing(f"LoRA on {targets} of {base_model} would train {trainable[:5]}; {advice}")
    return adapted


def save_adapter(model: Any, folder: Path) -> dict[str, str]:
    """Write the adapter of `model` into the new `folder`; returns file name to SHA-256."""
    model.save_pretrained(folder)
    for path in folder.iterdir():
        # PEFT adds a model card with nothing in it.
        if path.name not in ADAPTER_FILES:
            path.unlink()
    return {name: file_digest(folder / name) for name in sorted(ADAPTER_FILES)}
