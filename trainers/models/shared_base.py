"""One loaded base model that several trainings and evaluations use in turn, each with adapters of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn


@contextmanager
def borrow_base(base: Any) -> Iterator[Any]:
    """Give `base`, and undo every adapter and every change of its forward pass when the block ends.

    TRL switches dropout off for DPO and KTO, and checkpointing makes the embeddings' output need gradients.
    The block may end by an error: an attempt that ran out of memory leaves its adapters in place.
    """
    forward = base.__dict__.get("forward")
    dropouts = {layer: layer.p for layer in base.modules() if isinstance(layer, nn.Dropout)}
    hooks = base.get_input_embeddings()._forward_hooks
    hooks_before = set(hooks)
    try:
        yield base
    finally:
        _remove_adapters(base)
        if forward is None:
            base.__dict__.pop("forward", None)
        else:
            base.forward = forward
        if getattr(base, "is_activation_checkpointing", False):
            base.activation_checkpointing_disable()
        # Set twice, by TRL and by transformers, whose own method removes the second one only.
        for hook in hooks.keys() - hooks_before:
            del hooks[hook]
        for layer, rate in dropouts.items():
            layer.p = rate
        base.zero_grad(set_to_none=True)


def _remove_adapters(base: Any) -> None:
    """Put the layers that adapters wrap back in their places."""
    wrapped = [(name, layer) for name, layer in base.named_modules() if isinstance(layer, BaseTunerLayer)]
    for name, layer in wrapped:
        parent, _, own = name.rpartition(".")
        setattr(base.get_submodule(parent), own, layer.get_base_layer())
    if hasattr(base, "peft_config"):
        del base.peft_config
    # Set where transformers itself added the adapter, as for encoders.
    if getattr(base, "_hf_peft_config_loaded", False):
        base._hf_peft_config_loaded = False
