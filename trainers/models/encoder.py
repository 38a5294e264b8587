"""An embedding model: a sentence-transformer on its device, and a low-rank adapter inside it.

The adapter sits in the transformer; pooling and normalisation stay as they are, so a version consists
only of `adapter_config.json` and `adapter_model.safetensors`, as for language models.
"""

import warnings
from pathlib import Path
from typing import Any

from trainers.models.adapter_files import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    TRAINED_ADAPTER,
    AdapterUnusable,
    LoraMatchesNothing,
    normalise_adapter_files,
)
from trainers.models.base_model import (
    BaseModelUnusable,
    Device,
    Dtype,
    find_base_folder,
    resolve_device,
    resolve_dtype,
)
from trainers.planning.hyperparameters import Hyperparameters

DOCUMENT_PROMPTS = ("document", "passage", "corpus")
"""Names under which models keep the prompt for documents, as `encode_document` looks for them."""
PREFIX = "base_model.model."
"""Prefix of the weights' names in an adapter's file: the place of PEFT's own wrapper."""
POOLERS = r".*pooler.*"
"""BERT's pooler is a linear layer that no sentence embedding passes through."""


def load_encoder(base: str, *, device: Device = "auto", dtype: Dtype = "auto") -> Any:
    """Load the sentence-transformer `base` (folder or hub id) on its device. Raises BaseModelUnusable."""
    from sentence_transformers import SentenceTransformer

    where = resolve_device(device)
    try:
        encoder = SentenceTransformer(
            str(find_base_folder(base)),
            device=where,
            local_files_only=True,
            model_kwargs={"dtype": resolve_dtype(dtype, where)},
        )
    except (OSError, ValueError) as broken:
        raise BaseModelUnusable(f"{base} cannot be loaded as a sentence-transformer: {broken}") from broken
    if not encoder.has_peft_compatible_model():
        raise BaseModelUnusable(
            f"{base} holds no transformer that an adapter could be added to; take another model"
        )
    return encoder


def find_column_prompts(encoder: Any) -> dict[str, str]:
    """Return the prompts that the model expects before texts, by the columns of triplets that have one."""
    known = {name: prompt for name, prompt in encoder.prompts.items() if prompt}
    query = known.get("query")
    document = next((known[name] for name in DOCUMENT_PROMPTS if name in known), None)
    prompts = {"anchor": query, "positive": document, "negative": document}
    return {column: prompt for column, prompt in prompts.items() if prompt}


def add_encoder_lora(encoder: Any, hyperparameters: Hyperparameters) -> None:
    """Add a new trainable adapter to `encoder` and freeze everything else. Raises LoraMatchesNothing.

    It adapts the linear layers of the transformer, or those that `lora_targets` names.
    """
    import torch
    from peft import LoraConfig

    layers = [
        name
        for name, module in encoder.transformers_model.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    poolers = any("pooler" in name for name in layers)
    found = {name.rpartition(".")[2] for name in layers if "pooler" not in name}
    targets = list(hyperparameters.lora_targets) or sorted(found)
    config = LoraConfig(
        r=hyperparameters.lora_rank,
        lora_alpha=hyperparameters.lora_alpha,
        lora_dropout=hyperparameters.lora_dropout,
        target_modules=targets,
        exclude_modules=POOLERS if poolers else None,
        task_type="FEATURE_EXTRACTION",
    )
    try:
        encoder.add_adapter(config, TRAINED_ADAPTER)
    except ValueError as refused:
        raise LoraMatchesNothing(
            f"LoRA on {targets} matches no layer of the model ({refused}); set `lora_targets` in the "
            f"target's hyperparameters to some of {sorted(found)}"
        ) from refused
    _train_adapter_alone(encoder)


def load_trainable_encoder_adapter(encoder: Any, folder: Path) -> None:
    """Add the adapter in `folder` to `encoder` to be trained further. Raises AdapterUnusable."""
    load_encoder_adapter(encoder, folder, TRAINED_ADAPTER)
    _train_adapter_alone(encoder)


def _train_adapter_alone(encoder: Any) -> None:
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_" in name:
            # Steps of Adam are too small for bfloat16's 8 bits.
            parameter.data = parameter.data.float()


def load_encoder_adapter(encoder: Any, folder: Path, slot: str) -> None:
    """Add the adapter in `folder` to `encoder` as `slot`, beside any others, and activate it.

    Raises AdapterUnusable.
    """
    from peft import PeftConfig
    from safetensors import SafetensorError

    if not (folder / ADAPTER_CONFIG).is_file():
        raise AdapterUnusable(f"{folder} holds no {ADAPTER_CONFIG}; restore the version from a back-up")
    try:
        config = PeftConfig.from_pretrained(str(folder))
        with warnings.catch_warnings():
            # PEFT warns that a second adapter may be a mistake.
            warnings.filterwarnings("ignore", "Already found a `peft_config` attribute", UserWarning)
            encoder.add_adapter(config, slot)
        fill_encoder_adapter(encoder, folder, slot)
    except (OSError, ValueError, RuntimeError, SafetensorError) as broken:
        raise AdapterUnusable(f"the adapter in {folder} does not fit its base model: {broken}") from broken


def fill_encoder_adapter(encoder: Any, folder: Path, slot: str) -> None:
    """Copy the weights in `folder` into the existing adapter `slot`. Raises ValueError unless all fit."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    model = encoder.transformers_model
    weights = {name.removeprefix(PREFIX): each for name, each in load_file(folder / ADAPTER_WEIGHTS).items()}
    own = get_peft_model_state_dict(model, adapter_name=slot, save_embedding_layers=False)
    unmatched = weights.keys() ^ own.keys()
    if unmatched:
        raise ValueError(f"it is for other layers: {min(unmatched)} is only on one side")
    set_peft_model_state_dict(model, weights, slot)


def save_encoder_adapter(encoder: Any, folder: Path, base_model: str) -> dict[str, str]:
    """Write the adapter of `encoder` into the new `folder`; return file name to SHA-256.

    The adapter is marked as belonging to `base_model`.
    """
    encoder.transformers_model.save_pretrained(folder)
    return normalise_adapter_files(folder, base_model)
