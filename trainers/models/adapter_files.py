"""The files of an adapter of a language model or an encoder, and the errors of those that cannot be used."""

import json
from pathlib import Path

from extractors.errors import LearndError
from extractors.values import file_digest

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TRAINED_ADAPTER = "default"
"""PEFT's name for the adapter that is trained; a frozen reference is held beside it as `ref`."""


class LoraMatchesNothing(LearndError):
    """The adapter would train nothing, or something other than low-rank matrices."""


class AdapterUnusable(LearndError):
    """An adapter's files are missing or do not fit the base model."""


def normalise_adapter_files(folder: Path, base_model: str | None = None) -> dict[str, str]:
    """Reduce `folder`, as PEFT wrote it, to the adapter's two files with reproducible content.

    Returns file name to SHA-256 (hex). With `base_model`, the adapter is marked as belonging to it.
    """
    for path in folder.iterdir():
        # PEFT adds a model card with nothing in it.
        if path.name not in {ADAPTER_CONFIG, ADAPTER_WEIGHTS}:
            path.unlink()
    # PEFT keeps the modules' names in a set: sorted, one training always writes the same bytes.
    config = json.loads((folder / ADAPTER_CONFIG).read_text("utf-8"))
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
    if base_model is not None:
        config["base_model_name_or_path"] = base_model
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True), "utf-8")
    return {name: file_digest(folder / name) for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)}
