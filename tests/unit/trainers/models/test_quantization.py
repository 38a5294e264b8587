"""A base in 4 bits: its computation, the training of an adapter on it, and that adapter afterwards."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from trainers.batching.prefix_tree import pack
from trainers.jobs.job import TrainingJob
from trainers.models.base_model import load_model
from trainers.models.lora import build_lora_config, check_lora, save_adapter
from trainers.models.quantization import (
    BITS_PER_WEIGHT,
    QuantizationUnavailable,
    build_nf4_config,
    cast_trainable_to_float32,
    find_quantization_obstacle,
)
from trainers.planning.hyperparameters import Hyperparameters
from trainers.planning.plan import Plan, TrainingStage

# PEFT asks transformers by a name that is going.
pytestmark = pytest.mark.filterwarnings("default:`is_gradient_checkpointing`:FutureWarning")

ROOT = Path(__file__).resolve().parents[4]
PROMPT = 40
ROWS = torch.tensor([[*range(1, PROMPT), 100 + n, 200 + n, 7] for n in range(4)])
"""Four prompts of 40 tokens, 39 of them common to all, with answers of two tokens."""


@pytest.fixture
def quantised(tiny_model: Path) -> Any:
    torch.manual_seed(0)
    base = load_model(str(tiny_model), device="cpu", dtype="float32", quantization="nf4")
    config = build_lora_config(base, Hyperparameters(lora_rank=4, lora_alpha=8), str(tiny_model))
    return check_lora(get_peft_model(base, config), str(tiny_model))


def compute_loss(model: Any) -> torch.Tensor:
    logits = model(input_ids=ROWS, use_cache=False).logits[:, PROMPT - 1 : -1]
    return cross_entropy(logits.flatten(0, 1), ROWS[:, PROMPT:].flatten())


def compute_shared_loss(model: Any) -> torch.Tensor:
    """Compute the same loss from one sequence that holds the common prefix once."""
    packed = pack(list(ROWS.numpy()), [PROMPT - 1] * len(ROWS))
    assert len(packed.tokens) < ROWS.numel() / 3
    logits = model(
        input_ids=torch.from_numpy(packed.tokens)[None],
        position_ids=torch.from_numpy(packed.positions)[None],
        attention_mask=torch.from_numpy(packed.build_mask())[None, None],
        use_cache=False,
    ).logits[0]
    nodes = torch.from_numpy(np.concatenate([path[PROMPT - 1 : -1] for path in packed.paths]))
    return cross_entropy(logits[nodes], ROWS[:, PROMPT:].flatten())


def train(model: Any, steps: int) -> list[float]:
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=5e-3)
    losses = []
    for _ in range(steps):
        loss = compute_loss(model.train())
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    return losses


def test_only_the_linear_layers_are_held_in_four_bits(tiny_model: Path) -> None:
    whole = load_model(str(tiny_model), device="cpu", dtype="float32")
    packed = load_model(str(tiny_model), device="cpu", dtype="float32", quantization="nf4")
    layers = sum(parameter.numel() for parameter in whole.model.layers.parameters() if parameter.ndim == 2)
    saved = whole.get_memory_footprint() - packed.get_memory_footprint()
    # The constants are not in transformers' sum: four bits are left of 32.
    assert saved == pytest.approx(layers * (32 - int(BITS_PER_WEIGHT)) / 8, rel=0.01)
    assert packed.lm_head.weight.dtype == torch.float32


def test_an_adapter_learns_over_four_bits_and_serves_over_the_full_base(
    quantised: Any, tiny_model: Path, tmp_path: Path
) -> None:
    losses = train(quantised, 30)
    assert losses[-1] < losses[0] / 10
    files = save_adapter(quantised, tmp_path / "adapter")
    assert set(files) == {"adapter_config.json", "adapter_model.safetensors"}
    assert "4bit" not in (tmp_path / "adapter/adapter_config.json").read_text()
    assert json.loads((tmp_path / "adapter/adapter_config.json").read_text())["r"] == 4
    weights = load_file(tmp_path / "adapter/adapter_model.safetensors")
    assert all("lora_" in name and weight.dtype == torch.float32 for name, weight in weights.items())
    assert compute_loss_on_full_base(tiny_model, tmp_path / "adapter") < losses[0] / 5


def compute_loss_on_full_base(base: Path, adapter: Path) -> float:
    from peft import PeftModel

    served = PeftModel.from_pretrained(load_model(str(base), device="cpu", dtype="float32"), adapter)
    with torch.no_grad():
        return compute_loss(served.eval()).item()


def test_an_evaluation_in_the_middle_changes_nothing_of_the_gradients(quantised: Any) -> None:
    before = compute_gradients(quantised, compute_loss)
    with torch.no_grad():
        compute_loss(quantised.eval())
    after = compute_gradients(quantised, compute_loss)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_prefix_shared_batches_are_exact_over_four_bits_too(quantised: Any) -> None:
    train(quantised, 3)  # a fresh adapter's B is zero, and so half of the gradients
    padded, shared = (
        compute_gradients(quantised, compute_loss),
        compute_gradients(quantised, compute_shared_loss),
    )
    for name, gradient in padded.items():
        assert torch.allclose(shared[name], gradient, rtol=1e-4, atol=1e-5 * gradient.abs().max().item()), (
            name
        )


def compute_gradients(model: Any, loss: Callable[[Any], torch.Tensor]) -> dict[str, torch.Tensor]:
    model.train().zero_grad()
    loss(model).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def test_weights_that_are_trained_are_float32_and_the_base_stays_as_it_is(quantised: Any) -> None:
    for parameter in quantised.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)  # as TRL does
    cast_trainable_to_float32(quantised)
    dtypes = {parameter.requires_grad: set[torch.dtype]() for parameter in quantised.parameters()}
    for parameter in quantised.parameters():
        dtypes[parameter.requires_grad].add(parameter.dtype)
    assert dtypes == {True: {torch.float32}, False: {torch.float32, torch.uint8}}


def test_a_device_that_cannot_says_which_can() -> None:
    with pytest.raises(QuantizationUnavailable, match="on vulkan, only on cpu, cuda"):
        build_nf4_config("vulkan", torch.float32)
    assert "on vulkan" in str(find_quantization_obstacle("vulkan"))
    assert find_quantization_obstacle("cpu") is None


def test_without_bitsandbytes_the_advice_is_to_install_it_and_no_ladder_leads_there(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["bitsandbytes"] = None  # Python's own mark for "cannot be imported"
from pathlib import Path
from trainers.jobs.first_attempt import build_memory_rules
from trainers.jobs.job import TrainingJob
from trainers.models.quantization import QuantizationUnavailable, build_nf4_config
try:
    build_nf4_config("cpu", None)
except QuantizationUnavailable as reason:
    print(reason)
job = TrainingJob.model_validate_json(Path(sys.argv[1]).read_text())
assert job.may_quantize and not build_memory_rules(job).may_quantize
"""
    stage = TrainingStage(method="sft", data="sft", hyperparameters=Hyperparameters())
    plan = Plan(stages=(stage,), reason="a test", snapshot_id="", base_model="", base_digest="")
    job = TrainingJob(plan=plan, snapshot="", device="cpu")
    (tmp_path / "job.json").write_text(job.model_dump_json())
    said = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "job.json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "pip install" in said.stdout
