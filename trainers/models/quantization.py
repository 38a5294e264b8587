"""A frozen base in 4 bits for training (QLoRA, Dettmers et al. 2023): NF4 with double quantisation.

Only a training holds its base in 4 bits. Its adapter is an ordinary one: it is evaluated and served on
the base in its own precision.
"""

from importlib.util import find_spec
from typing import Any

from extractors.errors import LearndError
from trainers.planning.plan import Quantization

BITS_PER_WEIGHT = 4 + 8 / 64 + 32 / (64 * 256)
"""Bits of a quantised weight: 4, an 8-bit constant for 64 weights, and a 32-bit one for 256 of those."""


class QuantizationUnavailable(LearndError):
    """The base cannot be held in 4 bits here."""


def build_nf4_config(device: str, dtype: Any) -> Any:
    """Build transformers' configuration for a base in NF4 that computes in the torch dtype `dtype`.

    Raises QuantizationUnavailable without bitsandbytes, or where it does not support `device`.
    """
    reason = find_quantization_obstacle(device)
    if reason is not None:
        raise QuantizationUnavailable(reason)
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def find_quantization_obstacle(device: str) -> str | None:
    """Return why no base can be held in 4 bits on `device`, and what to do about it; None if one can."""
    if find_spec("bitsandbytes") is None:
        return (
            'QLoRA needs bitsandbytes: `pip install "learnd[train]"`, or set training.quantization = "never"'
        )
    import bitsandbytes

    if device in bitsandbytes.supported_torch_devices:
        return None
    return (
        f"bitsandbytes {bitsandbytes.__version__} holds no weights in 4 bits on {device}, only on "
        f'{", ".join(sorted(bitsandbytes.supported_torch_devices))}; set training.quantization = "never"'
    )


def find_quantization(model: Any) -> Quantization | None:
    """Return how the weights of `model` are held; None for its own precision."""
    return "nf4" if getattr(model, "is_loaded_in_4bit", False) else None


def keep_trainable(model: Any) -> Any:
    """Return `model`, made to give gradients also after an evaluation.

    On CPUs with AVX512-BF16, bitsandbytes packs weights for its inference kernel at the first
    forward pass in evaluation mode, never unpacks them, and that kernel has no backward pass
    (bitsandbytes 0.50, `nn/modules.py`, `Linear4bit.forward`).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def cast_trainable_to_float32(model: Any) -> None:
    """Cast the trainable weights of `model` to float32: TRL makes them bfloat16 on a 4-bit base.

    A step of Adam is about as large as the learning rate, which bfloat16's 8 bits round away once a
    weight is 256 times larger.
    """
    import torch

    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
