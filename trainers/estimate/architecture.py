"""The architecture of a base model, read from its folder without loading it, for estimates."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from extractors.values import Value
from trainers.batching.prefix_tree import ModelWidths
from trainers.models.base_model import BaseModelUnusable, find_base_folder, find_weight_files

NOT_ADAPTED = ("embed", "lm_head", "wte", "wpe", "pooler")
"""Parts of the names of matrices that are neither adapted nor held in 4 bits."""


class Architecture(Value):
    """A transformer's dimensions."""

    parameters: int
    """Number of weights; a matrix that is used twice counts once."""
    file_bytes: int
    """Size of the weights on disk."""
    layers: int
    hidden: int
    intermediate: int
    attention: int
    """Width of the queries of all heads together."""
    vocabulary: int
    gated: bool
    """True if the MLP has a gate (SwiGLU), and so three matrices."""
    linear: tuple[tuple[int, int], ...]
    """(outputs, inputs) of each matrix that is adapted."""

    @property
    def linear_parameters(self) -> int:
        """Weights of all adapted matrices together."""
        return sum(outputs * inputs for outputs, inputs in self.linear)

    @property
    def widths(self) -> ModelWidths:
        """The sizes by which batches are packed or not."""
        return ModelWidths(
            self.layers, self.hidden, self.intermediate, self.attention, self.linear_parameters
        )

    def count_adapter_parameters(self, rank: int) -> int:
        """Count the weights of an adapter of `rank` on all matrices in `linear`."""
        return sum(rank * (outputs + inputs) for outputs, inputs in self.linear)


def read_architecture(base: str) -> Architecture:
    """Read the architecture of `base` (folder or hub id). Raises BaseModelUnusable."""
    from safetensors import SafetensorError

    folder = find_base_folder(base)
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        config = config.get("text_config", config)
        sizes = dict(_read_matrices(folder))
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        return Architecture(
            parameters=sum(math.prod(shape) for shape in sizes.values()),
            file_bytes=sum(path.stat().st_size for path in find_weight_files(folder)),
            layers=config["num_hidden_layers"],
            hidden=hidden,
            intermediate=config["intermediate_size"],
            attention=heads * (config.get("head_dim") or hidden // heads),
            vocabulary=config["vocab_size"],
            gated=any("gate_proj" in name for name in sizes),
            linear=tuple(_find_linear(sizes)),
        )
    except (OSError, KeyError, ValueError, TypeError, SafetensorError) as lacking:
        raise BaseModelUnusable(
            f"{folder}: its size cannot be determined from config.json and its weights ({lacking!r}); "
            "an estimate needs a transformer in Hugging Face's format"
        ) from lacking


def _read_matrices(folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield name and shape of each weight, from the files' headers."""
    from safetensors import safe_open

    for path in find_weight_files(folder):
        with safe_open(path, framework="numpy") as weights:
            for name in weights.keys():  # noqa: SIM118 - it is no dict
                yield name, tuple(weights.get_slice(name).get_shape())


def _find_linear(sizes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[int, int]]:
    for name, shape in sizes.items():
        if len(shape) == 2 and not any(part in name for part in NOT_ADAPTED):
            yield shape[0], shape[1]
