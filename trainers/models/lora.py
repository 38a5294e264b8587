"""A low-rank adapter on a base model (Hu et al. 2021), and proof that it is one."""

import json
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn

from extractors.errors import LearndError
from extractors.values import file_digest
from trainers.planning.hyperparameters import Hyperparameters

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TRAINED = "default"
"""PEFT's name of the adapter that is trained; a frozen reference stands beside it as `ref`."""
ADVICE = "set `lora_targets` in the target's hyperparameters to names of its linear layers"


class LoraMatchesNothing(LearndError):
    """The adapter would train nothing, or something else than low-rank matrices."""


class AdapterUnusable(LearndError):
    """The adapter that a training should go on from is not one of this base."""


def build_lora_config(model: Any, hyperparameters: Hyperparameters, base_model: str) -> LoraConfig:
    """A fresh adapter on the modules that the hyperparameters name, or on all linear layers but the head.

    `base_model` is its name in errors. Raises LoraMatchesNothing.
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
    """`model` with the adapter in `folder`, which can be trained on. Raises AdapterUnusable."""
    try:
        return check_lora(PeftModel.from_pretrained(model, folder, is_trainable=True), base_model)
    except (OSError, ValueError, RuntimeError) as broken:
        raise AdapterUnusable(
            f"{folder} is no adapter of this base: {broken}; start the cycle again"
        ) from broken


def set_lora(model: Any, folder: Path) -> None:
    """Give the trained adapter of `model` exactly the weights in `folder`, in the precision it has now."""
    set_peft_model_state_dict(model, load_file(folder / WEIGHTS), adapter_name=TRAINED)


def check_lora(adapted: Any, base_model: str) -> Any:
    """`adapted` itself, whose adapter says from now on that it belongs to `base_model`.

    Raises LoraMatchesNothing unless it trains one adapter's low-rank matrices alone.
    """
    trainable = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    others = [name for name in trainable if "lora_" not in name or f".{TRAINED}." not in name]
    if others or not trainable:
        raise LoraMatchesNothing(f"the adapter would train {others[:5] or 'nothing'}; {ADVICE}")
    # PEFT would name the folder that the base was loaded from.
    adapted.peft_config[TRAINED].base_model_name_or_path = base_model
    return adapted


def save_adapter(model: Any, folder: Path) -> dict[str, str]:
    """Write the trained adapter of `model`, no other, into the new `folder`; returns file name to SHA-256."""
    model.save_pretrained(folder, selected_adapters=[TRAINED])
    for path in folder.iterdir():
        # PEFT adds a model card with nothing in it.
        if path.name not in {CONFIG, WEIGHTS}:
            path.unlink()
    # PEFT keeps the modules' names in a set: sorted, one training always writes the same bytes.
    config = json.loads((folder / CONFIG).read_text("utf-8"))
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True), "utf-8")
    return {name: file_digest(folder / name) for name in (CONFIG, WEIGHTS)}


def _check_targets(model: Any, targets: list[str], base_model: str) -> None:
    """As PEFT matches them: by the end of a module's name."""
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
