"""A low-rank adapter on a base model (Hu et al. 2021), and proof that it is one."""

from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn

from trainers.models.adapter_files import (
    ADAPTER_WEIGHTS,
    TRAINED_ADAPTER,
    AdapterUnusable,
    LoraMatchesNothing,
    normalise_adapter_files,
)
from trainers.planning.hyperparameters import Hyperparameters

ADVICE = "set `lora_targets` in the target's hyperparameters to names of its linear layers"


def build_lora_config(model: Any, hyperparameters: Hyperparameters, base_model: str) -> LoraConfig:
    """Configure a new adapter on the modules that `lora_targets` names, or on all linear layers but the head.

    `base_model` is the model's name in errors. Raises LoraMatchesNothing.
    """
    targets = list(hyperparameters.lora_targets)
    if targets:
        _check_targets(model, targets, base_model)
    return LoraConfig(
        r=hyperparameters.lora_rank,
        lora_alpha=hyperparameters.lora_alpha,
        lora_dropout=hyperparameters.lora_dropout,
        target_modules=targets or "all-linear",
        task_type="CAUSAL_LM",
    )


def load_lora(model: Any, folder: Path, base_model: str) -> Any:
    """Return `model` with the adapter in `folder`, trainable. Raises AdapterUnusable."""
    try:
        return check_lora(PeftModel.from_pretrained(model, folder, is_trainable=True), base_model)
    except (OSError, ValueError, RuntimeError) as broken:
        raise AdapterUnusable(
            f"{folder} is no adapter of this base: {broken}; start the cycle again"
        ) from broken


def set_lora(model: Any, folder: Path) -> None:
    """Set the trained adapter of `model` to the weights in `folder`, in the precision it has now."""
    set_peft_model_state_dict(model, load_file(folder / ADAPTER_WEIGHTS), adapter_name=TRAINED_ADAPTER)


def check_lora(adapted: Any, base_model: str) -> Any:
    """Return `adapted`, its adapter marked as belonging to `base_model`.

    Raises LoraMatchesNothing unless only one adapter's low-rank matrices are trainable.
    """
    trainable = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    others = [name for name in trainable if "lora_" not in name or f".{TRAINED_ADAPTER}." not in name]
    if others or not trainable:
        raise LoraMatchesNothing(f"the adapter would train {others[:5] or 'nothing'}; {ADVICE}")
    # PEFT would name the folder that the base was loaded from.
    adapted.peft_config[TRAINED_ADAPTER].base_model_name_or_path = base_model
    return adapted


def save_adapter(model: Any, folder: Path) -> dict[str, str]:
    """Write only the trained adapter of `model` into the new `folder`; return file name to SHA-256."""
    model.save_pretrained(folder, selected_adapters=[TRAINED_ADAPTER])
    return normalise_adapter_files(folder)


def _check_targets(model: Any, targets: list[str], base_model: str) -> None:
    """Raise LoraMatchesNothing unless the targets match linear layers alone, by the ends of their names."""
    named = [
        (name, module)
        for name, module in model.named_modules()
        if any(name == target or name.endswith(f".{target}") for target in targets)
    ]
    if not named:
        raise LoraMatchesNothing(f"LoRA on {targets} matches no module of {base_model}; {ADVICE}")
    for name, module in named:
        if not isinstance(module, nn.Linear) or module is model.get_output_embeddings():
            raise LoraMatchesNothing(
                f"LoRA on {targets} matches {name} of {base_model}, a {type(module).__name__} that it "
                f"cannot adapt; {ADVICE}"
            )
