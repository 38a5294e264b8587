"""Batches that hold the shared beginning of their examples once. Exact, and 2 to 10 times faster.

Examples of one agent begin alike (system prompt, tools). A batch becomes one sequence:

    tokens     P P P P | a a a | b b
    positions  0 1 2 3 | 4 5 6 | 4 5
    sees         P       P + a   P + b     (causally)

(The idea is prefix sharing as in tree attention; the numbers are those of the padded batch up
to rounding, see the tests.)
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

Features = Sequence[dict[str, list[int]]]
"""Examples as `{"input_ids", "labels"}` of equal length; label -100 teaches nothing."""
Batch = dict[str, torch.Tensor]

PROVEN = frozenset({"llama", "qwen2", "qwen3"})
"""Architectures for which tests show equal losses and gradients."""
STATIC_ROPE = frozenset({"default", "linear", "llama3", "yarn"})
"""Position schemes in which a token's rotation depends on its own position alone."""
LEAST_SAVING = 0.25
"""Share of a padded batch's tokens that must be saved: the mask costs time by the square of the length."""


def is_exact_for(model: Any, lora_dropout: float = 0.0) -> tuple[bool, str]:
    """Whether shared and padded batches give `model` the same gradients; if not, why, in words."""
    config = model.config.get_text_config()
    if config.model_type not in PROVEN:
        return False, f"it is not proven for {config.model_type} models"
    if config._attn_implementation not in {"sdpa", "eager"}:
        return False, f"{config._attn_implementation} attention takes no mask of our own"
    if set(getattr(config, "layer_types", None) or ()) - {"full_attention"}:
        return False, "some layers see a sliding window only"
    rope = (config.rope_parameters or {}).get("rope_type", "default")
    if rope not in STATIC_ROPE:
        return False, f"{rope} positions depend on the length of the sequence"
    if lora_dropout or config.attention_dropout:
        return False, "dropout would fall on the shared beginning once for all its examples"
    return True, ""


def collator(pad_token_id: int, *, share: bool) -> Callable[[Features], Batch]:
    """What makes a batch of examples: sharing their beginning where that pays, if `share`, else padded."""

    def collate(features: Features) -> Batch:
        prefix = shared_prefix(features) if share else 0
        padded = len(features) * max(len(feature["input_ids"]) for feature in features)
        if padded - prefix_shared_length(features, prefix) < LEAST_SAVING * padded:
            return padded_batch(features, pad_token_id)
        return prefix_shared_batch(features, prefix)

    return lambda features: collate(features) if share else padded_batch(features, pad_token_id)


def shared_prefix(features: Features) -> int:
    """How many first tokens all examples share, ending one before the earliest label.

    Every first label is thus predicted from its own part of the sequence.
    """
    first = features[0]["input_ids"]
    longest = min(_first_label(feature["labels"]) - 1 for feature in features)
    for position in range(max(longest, 0)):
        if any(feature["input_ids"][position] != first[position] for feature in features):
            return position
    return max(longest, 0)


def prefix_shared_length(features: Features, prefix: int) -> int:
    """Tokens in the shared batch."""
    return prefix + sum(len(feature["input_ids"]) - prefix for feature in features)


def prefix_shared_batch(features: Features, prefix: int) -> Batch:
    """One sequence: `input_ids`, `position_ids`, `labels` (1, L), boolean `attention_mask` (1, 1, L, L)."""
    ids = list(features[0]["input_ids"][:prefix])
    labels = [-100] * prefix
    positions = list(range(prefix))
    part_of = [0] * prefix
    for part, feature in enumerate(features, start=1):
        rest = feature["input_ids"][prefix:]
        ids += rest
        # Nothing may be predicted across a border: the token before a part's first belongs to another part.
        labels += [-100, *feature["labels"][prefix + 1 :]]
        positions += range(prefix, prefix + len(rest))
        part_of += [part] * len(rest)
    part = torch.tensor(part_of)
    sees = (part[None, :] == 0) | (part[None, :] == part[:, None])
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "labels": torch.tensor([labels]),
        "attention_mask": sees.tril()[None, None],
    }


def padded_batch(features: Features, pad_token_id: int) -> Batch:
    """B rows of T tokens, padded on the right: `input_ids`, `labels`, `attention_mask`, each (B, T)."""
    length = max(len(feature["input_ids"]) for feature in features)
    pads = [length - len(feature["input_ids"]) for feature in features]
    return {
        "input_ids": torch.tensor(
            [
                [*feature["input_ids"], *[pad_token_id] * pad]
                for feature, pad in zip(features, pads, strict=True)
            ]
        ),
        "labels": torch.tensor(
            [[*feature["labels"], *[-100] * pad] for feature, pad in zip(features, pads, strict=True)]
        ),
        "attention_mask": torch.tensor([[1] * (length - pad) + [0] * pad for pad in pads]),
    }


def _first_label(labels: list[int]) -> int:
    return next((position for position, label in enumerate(labels) if label != -100), len(labels))
