"""A model's forward pass over rows with common prefixes, computing each prefix once. Exact.

TRL's trainers ask the model for log-probabilities of right-padded rows (`fused_lm_head=True`, see
`add_fused_lm_head` in trl/trainer/utils.py). `share_prefixes` computes them from one packed sequence
(`prefix_tree.py`): SFT, DPO and KTO remain TRL's own, and only the way to the numbers is shorter.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from trainers.batching.prefix_tree import ModelWidths, PackedBatch, pack_if_cheaper
from trainers.batching.tokenise import IGNORE_INDEX

if TYPE_CHECKING:
    from trl.trainer.utils import FusedCausalLMOutput

PROVEN_ARCHITECTURES = frozenset({"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"})
"""Architectures whose losses and gradients tests show to be equal."""
MASKED_LAYERS = frozenset({"full_attention", "sliding_attention"})
"""Kinds of attention layers for which `_build_masks` builds a mask."""
STATIC_ROPE = frozenset({"default", "linear", "llama3", "yarn"})
"""Position schemes in which a token's rotation depends on its own position alone."""
BATCH_KEYS = frozenset({"input_ids", "attention_mask", "labels", "use_cache", "fused_lm_head"})
"""Arguments that TRL passes for a batch of text; a call with any other is left to TRL."""


@dataclass
class PrefixSharing:
    """The way in which a training's batches are computed, and their count so far, without validations."""

    widths: ModelWidths | None
    """The model's sizes, by which a batch is packed or not; None: all stay padded."""
    packed: int = 0
    """Batches that were packed into one sequence."""
    padded: int = 0
    """Batches that stayed padded rows."""


def find_inexactness(model: Any, lora_dropout: float = 0.0) -> str | None:
    """Return why packed rows would give `model` other gradients than padded ones; None if the same."""
    config = model.config
    if config.model_type not in PROVEN_ARCHITECTURES:
        return f"it is not proven for {config.model_type} models"
    if config._attn_implementation not in {"sdpa", "eager"}:
        return f"{config._attn_implementation} attention takes no mask of our own"
    unknown = set(getattr(config, "layer_types", None) or ()) - MASKED_LAYERS
    if unknown:
        return f"there is no mask for {', '.join(sorted(unknown))} layers"
    if getattr(config, "use_bidirectional_attention", False):
        return "its tokens see those that follow"
    for rope in _find_rope_types(config):
        if rope not in STATIC_ROPE:
            return f"{rope} positions depend on the length of the sequence"
    if lora_dropout or config.attention_dropout:
        return "dropout would fall on the shared beginning once for all its examples"
    return None


def share_prefixes(model: Any, *, share: bool = True, tiled: bool | None = None) -> PrefixSharing:
    """Replace the forward pass of `model`: shared prefixes are computed once, and logits only for labels.

    `model` is the base model (of a PEFT model, `get_base_model()`) with TRL's fused head in place.
    Without `share`, or for a batch that has too little in common, rows stay padded; the returned record
    counts them.

    With `tiled`, TRL's head computes the logits and never holds all of them; None means on a GPU, where
    that head computes them for labels only. On a CPU it projects every token onto the vocabulary: the
    model's own head, asked for the labels' logits only, is far cheaper there.
    """
    fused = model.forward
    tiled = model.device.type == "cuda" if tiled is None else tiled
    sharing = PrefixSharing(measure_widths(model) if share else None)

    def forward(*args: Any, **kwargs: Any) -> Any:
        # PEFT passes every argument by name, also those that are None.
        given = {name: value for name, value in kwargs.items() if value is not None}
        if args or not _is_text_batch(given):
            return fused(*args, **kwargs)
        packed = _pack_batch(given, sharing.widths) if sharing.widths else None
        if torch.is_grad_enabled():
            sharing.packed += packed is not None
            sharing.padded += packed is None
        if packed is not None:
            return _forward_packed(model, fused, packed, given["labels"], tiled=tiled)
        if tiled:
            return fused(**given)
        return _forward_padded(model, fused, given)

    model.forward = forward
    return sharing


def measure_widths(model: Any) -> ModelWidths:
    """Measure the sizes of a base model, without its adapters."""
    config, head = model.config, model.get_output_embeddings()
    return ModelWidths(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        attention=config.num_attention_heads
        * (getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads),
        linear=sum(
            module.in_features * module.out_features
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and module is not head and "lora_" not in name
        ),
    )


def _find_rope_types(config: Any) -> set[str]:
    """Return the position schemes of `config`; some models have one for each kind of layer."""
    parameters: Mapping[str, Any] = config.rope_parameters or {}
    schemes = [each for each in parameters.values() if isinstance(each, Mapping)] or [parameters]
    return {scheme.get("rope_type", "default") for scheme in schemes}


def _is_text_batch(inputs: Mapping[str, Any]) -> bool:
    """Return True for TRL's call with a batch of right-padded text, and nothing else in it."""
    mask = inputs.get("attention_mask")
    if not inputs.get("fused_lm_head") or not inputs.keys() <= BATCH_KEYS:
        return False
    return mask is not None and mask.dim() == 2 and not bool((mask[:, 1:] > mask[:, :-1]).any())


def _pack_batch(inputs: Mapping[str, Any], widths: ModelWidths) -> PackedBatch | None:
    """Pack the batch's rows into a tree; return None if that would save too little.

    A row's shareable part ends one token before its first label, so each label is predicted in the
    row's own branch.
    """
    ids, labels = inputs["input_ids"].cpu().numpy(), inputs["labels"].cpu().numpy()
    lengths = inputs["attention_mask"].sum(dim=1).tolist()
    learned = labels[:, 1:] != IGNORE_INDEX
    first = np.where(learned.any(axis=1), learned.argmax(axis=1), ids.shape[1])
    rows = [ids[row, :length] for row, length in enumerate(lengths)]
    return pack_if_cheaper(rows, np.minimum(first, lengths).tolist(), widths)


def _forward_packed(
    model: Any, fused: Callable[..., Any], packed: PackedBatch, labels: torch.Tensor, *, tiled: bool
) -> "FusedCausalLMOutput":
    device, mask = labels.device, labels[:, 1:] != IGNORE_INDEX
    rows, columns = mask.nonzero(as_tuple=True)
    paths = np.full(labels.shape, -1)
    for row, path in enumerate(packed.paths):
        paths[row, : len(path)] = path
    nodes = torch.from_numpy(paths).to(device)[rows, columns]
    inputs = {
        "input_ids": torch.from_numpy(packed.tokens)[None].to(device),
        "position_ids": torch.from_numpy(packed.positions)[None].to(device),
        "attention_mask": _build_masks(model, packed, device),
        "use_cache": False,
    }
    targets = labels[rows, columns + 1]
    if tiled:
        shifted = torch.full_like(inputs["input_ids"], IGNORE_INDEX)
        shifted[0, nodes] = targets
        values = fused(**inputs, shift_labels=shifted, fused_lm_head=True)
        statistics = {name: values[name][0, nodes] for name in FIELDS if values.get(name) is not None}
    else:
        statistics = _compute_statistics(fused(**inputs, logits_to_keep=nodes).logits[0], targets)
    return _build_output(statistics, mask)


def _forward_padded(
    model: Any, fused: Callable[..., Any], inputs: Mapping[str, Any]
) -> "FusedCausalLMOutput":
    labels = inputs["labels"]
    mask = labels[:, 1:] != IGNORE_INDEX
    rows, columns = mask.nonzero(as_tuple=True)
    unlabelled = {name: inputs[name] for name in ("input_ids", "attention_mask")}

    # `logits_to_keep` takes the same columns of every row: too many where answers begin at different places.
    def select_labelled(_: Any, hidden: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (hidden[0][rows, columns][None],)

    with model.get_output_embeddings().register_forward_pre_hook(select_labelled):
        logits = fused(**unlabelled, use_cache=False).logits[0]
    return _build_output(_compute_statistics(logits, labels[rows, columns + 1]), mask)


FIELDS = ("log_probs", "entropy", "mean_logits", "is_top1")


def _compute_statistics(logits: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    """Compute what TRL's head returns for each label, from (N, vocabulary) logits.

    Only the log-probabilities have a gradient.
    """
    logits = logits.float()
    log_sums = logits.logsumexp(dim=-1)
    log_probs = logits.gather(1, targets[:, None])[:, 0] - log_sums
    with torch.no_grad():
        expected = ((logits - log_sums[:, None]).exp() * logits).sum(dim=-1)
        return {
            "log_probs": log_probs,
            "entropy": log_sums - expected,
            "mean_logits": logits.mean(dim=-1),
            "is_top1": logits.argmax(dim=-1) == targets,
        }


def _build_output(statistics: Mapping[str, torch.Tensor], mask: torch.Tensor) -> "FusedCausalLMOutput":
    """Place the labels' values where `mask` (B, T - 1) is True, and zero elsewhere."""
    # An evaluation shares prefixes, too, and has no other use for TRL.
    from trl.trainer.utils import FusedCausalLMOutput

    per_token = {
        name: values.new_zeros(mask.shape).masked_scatter(mask, values) for name, values in statistics.items()
    }
    loss = -per_token["log_probs"].sum() / mask.sum().clamp(min=1)
    return FusedCausalLMOutput(loss=loss, label_mask=mask, **per_token)


def _build_masks(model: Any, packed: PackedBatch, device: torch.device) -> Any:
    """Build the model's mask, shape (1, 1, L, L); a mask for each kind of layer if the model has several."""
    config = model.config
    full = torch.from_numpy(packed.build_mask()).to(device)
    window = getattr(config, "sliding_window", None)
    if window is None:
        return _to_additive(full, model)
    positions = torch.from_numpy(packed.positions).to(device)
    near = _to_additive(full & (positions[:, None] - positions[None, :] < window), model)
    if not getattr(config, "layer_types", None):
        return near
    return {"full_attention": _to_additive(full, model), "sliding_attention": near}


def _to_additive(visible: torch.Tensor, model: Any) -> torch.Tensor:
    """Convert a boolean mask to the additive one of eager and SDPA attention, once for all layers."""
    mask = torch.zeros(visible.shape, dtype=model.dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(mask.dtype).min)[None, None]
