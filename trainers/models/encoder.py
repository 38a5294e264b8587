"""An embedding model: a sentence-transformer on its device, and a low-rank adapter inside it.

The adapter sits in the transformer; pooling and normalisation stay as they are, so a version is
nothing but `adapter_config.json` and `adapter_model.safetensors`, as for language models.
"""

import json
import warnings
from pathlib import Path
from typing import Any

from extractors.values import file_digest
from trainers.models.base_model import (
    BaseModelUnusable,
    Device,
    Dtype,
    find_base_folder,
    resolve_device,
    resolve_dtype,
)
from trainers.models.lora import CONFIG, TRAINED, WEIGHTS, AdapterUnusable, LoraMatchesNothing
from trainers.planning.hyperparameters import Hyperparameters

DOCUMENT_PROMPTS = ("document", "passage", "corpus")
"""Names under which models keep the prompt for documents, as `encode_document` looks for them."""
PREFIX = "base_model.model."
"""Before the names of weights in an adapter's file: PEFT's own wrapper would stand there."""
POOLERS = r".*pooler.*"
"""BERT's pooler is a linear layer that no sentence embedding passes through."""


def load_encoder(base: str, *, device: Device = "auto", dtype: Dtype = "auto") -> Any:
    """The sentence-transformer `base` (folder or hub id) on its device. Raises BaseModelUnusable."""
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
    """What the model wants before the texts of each column of triplets, for columns where it wants any."""
    known = {name: prompt for name, prompt in encoder.prompts.items() if prompt}
    query = known.get("query")
    document = next((known[name] for name in DOCUMENT_PROMPTS if name in known), None)
    prompts = {"anchor": query, "positive": document, "negative": document}
    return {column: prompt for column, prompt in prompts.items() if prompt}


def add_encoder_lora(encoder: Any, hyperparameters: Hyperparameters) -> None:
    """Add a fresh trainable adapter to `encoder` and freeze all else. Raises LoraMatchesNothing.

    It is on the linear layers of the transformer, or those that `lora_targets` names.
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
        encoder.add_adapter(config, TRAINED)
    except ValueError as refused:
        raise LoraMatchesNothing(
            f"LoRA on {targets} matches no layer of the model ({refused}); set `lora_targets` in the "
            f"target's hyperparameters to some of {sorted(found)}"
        ) from refused
    _train_adapter_alone(encoder)


def load_trainable_encoder_adapter(encoder: Any, folder: Path) -> None:
    """Add the adapter in `folder` to `encoder`, to be trained further. Raises AdapterUnusable."""
    load_encoder_adapter(encoder, folder, TRAINED)
    _train_adapter_alone(encoder)


def _train_adapter_alone(encoder: Any) -> None:
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_" in name:
            # Steps of Adam are too small for bfloat16's 8 bits.
            parameter.data = parameter.data.float()


def get_adapter_weights(encoder: Any) -> dict[str, Any]:
    """The adapter's tensors on the CPU, by the names of the encoder's parameters."""
    return {
        name: parameter.detach().cpu().contiguous()
        for name, parameter in encoder.named_parameters()
        if parameter.requires_grad
    }


def set_adapter_weights(encoder: Any, weights: dict[str, Any]) -> None:
    """Give the adapter of `encoder` the tensors that `get_adapter_weights` took from it."""
    import torch

    own = {name: parameter for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    if own.keys() != weights.keys():
        raise ValueError(f"these weights are another adapter's: {sorted(own.keys() ^ weights.keys())[:3]}")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])


def load_encoder_adapter(encoder: Any, folder: Path, slot: str) -> None:
    """Add the adapter in `folder` to `encoder` beside those that it has, under the name `slot`.

    It is then the one that is used. Raises AdapterUnusable.
    """
    from peft import PeftConfig
    from safetensors import SafetensorError

    if not (folder / CONFIG).is_file():
        raise AdapterUnusable(f"{folder} holds no {CONFIG}; restore the version from a back-up")
    try:
        config = PeftConfig.from_pretrained(str(folder))
        with warnings.catch_warnings():
            # PEFT wonders whether a second adapter is meant.
            warnings.filterwarnings("ignore", "Already found a `peft_config` attribute", UserWarning)
            encoder.add_adapter(config, slot)
        _fill_adapter(encoder, folder, slot)
    except (OSError, ValueError, RuntimeError, SafetensorError) as broken:
        raise AdapterUnusable(f"the adapter in {folder} does not fit its base model: {broken}") from broken


def _fill_adapter(encoder: Any, folder: Path, slot: str) -> None:
    """Copy the weights in `folder` into an adapter that is there. Raises ValueError unless all fit."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    model = encoder.transformers_model
    weights = {name.removeprefix(PREFIX): each for name, each in load_file(folder / WEIGHTS).items()}
    odd = (
        weights.keys()
        ^ get_peft_model_state_dict(model, adapter_name=slot, save_embedding_layers=False).keys()
    )
    if odd:
        raise ValueError(f"it is for other layers: {min(odd)} is only on one side")
    set_peft_model_state_dict(model, weights, slot)


def save_encoder_adapter(encoder: Any, folder: Path, base_model: str) -> dict[str, str]:
    """Write the adapter of `encoder` into the new `folder`; returns file name to SHA-256.

    `base_model` is what the adapter says it belongs to.
    """
    encoder.transformers_model.save_pretrained(folder)
    for path in folder.iterdir():
        if path.name not in {CONFIG, WEIGHTS}:
            path.unlink()
    # PEFT keeps the modules' names in a set: sorted, one training always writes the same bytes.
    config = json.loads((folder / CONFIG).read_text("utf-8"))
    config["target_modules"].sort()
    config["base_model_name_or_path"] = base_model
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True), "utf-8")
    return {name: file_digest(folder / name) for name in (CONFIG, WEIGHTS)}
