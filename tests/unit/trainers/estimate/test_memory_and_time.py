"""Estimates of a training: counted memory, measured speed, and the choice of the first attempt."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.support.traffic import NOON
from trainers.batching.workload import Workload, measure_workload
from trainers.estimate.architecture import Architecture, read_architecture
from trainers.estimate.estimates import MemoryEstimate
from trainers.estimate.memory_and_time import estimate_memory, estimate_training, find_fitting_attempt
from trainers.job_folder import Progress
from trainers.jobs.reporting import ProgressReporter
from trainers.models.base_model import BaseModelUnusable, measure_weight_bytes
from trainers.planning.hyperparameters import Hyperparameters
from trainers.recovery.fallbacks import Attempt, MemoryRules, build_first_attempt, reduce_memory

GB = 10**9
CONFIG = {
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "intermediate_size": 16,
    "vocab_size": 10,
}
WEIGHTS = {
    "model.embed_tokens.weight": np.zeros((10, 8), np.float32),
    "model.layers.0.self_attn.q_proj.weight": np.zeros((8, 8), np.float32),
}
HYPERPARAMETERS = Hyperparameters(epochs=3, batch_size=8, lora_rank=16)


def build_llama_8b() -> Architecture:
    """Llama 3.1 8B, by its published configuration."""
    layer = [
        (4096, 4096),
        (1024, 4096),
        (1024, 4096),
        (4096, 4096),
        (14336, 4096),
        (14336, 4096),
        (4096, 14336),
    ]
    return Architecture(
        parameters=8_030_261_248,
        file_bytes=16_060_522_496,
        layers=32,
        hidden=4096,
        intermediate=14336,
        attention=4096,
        vocabulary=128256,
        gated=True,
        linear=tuple(layer * 32),
    )


def make_workload(**changes: int) -> Workload:
    usual = Workload(
        examples=300,
        tokens=60_000,
        validation_tokens=6_000,
        largest_batch=600,
        largest_mask=600**2,
        most_labels=40,
    )
    return usual.model_copy(update=changes)


def estimate_llama(
    device: str = "cuda", dtype: str = "bfloat16", quantization: object = None, **changes: int
) -> MemoryEstimate:
    attempt = build_first_attempt(HYPERPARAMETERS, on_cpu=device == "cpu")
    attempt = attempt.model_copy(update={"quantization": quantization})
    return estimate_memory(
        build_llama_8b(), make_workload(**changes), HYPERPARAMETERS, attempt, dtype, device
    )


def test_an_adapter_of_rank_16_on_llama_8b_has_the_published_size() -> None:
    # PEFT prints "trainable params: 41,943,040" for it.
    assert build_llama_8b().count_adapter_parameters(16) == 41_943_040
    assert estimate_llama().adapter == 41_943_040 * 16


def test_four_bits_take_a_third_of_the_memory_of_8b_weights() -> None:
    whole, packed = estimate_llama(), estimate_llama(quantization="nf4")
    assert whole.weights == pytest.approx(16.06 * GB, rel=0.001)
    # The 7 billion weights of the layers in 4.127 bits, 1 billion of embeddings and head in bfloat16.
    assert packed.weights == pytest.approx(5.7 * GB, rel=0.02)


def test_each_rung_of_the_ladder_is_estimated_to_take_less() -> None:
    attempt, totals = build_first_attempt(HYPERPARAMETERS, on_cpu=True), []
    while attempt is not None:
        load = make_workload(largest_batch=600 * attempt.micro_batch, most_labels=40 * attempt.micro_batch)
        totals.append(
            estimate_memory(build_llama_8b(), load, HYPERPARAMETERS, attempt, "bfloat16", "cpu").needed
        )
        attempt = reduce_memory(attempt, MemoryRules())
    assert len(totals) == 6
    assert totals == sorted(totals, reverse=True)


@pytest.mark.parametrize(
    ("gigabytes", "chosen"),
    [
        (80, "8 × 1 examples a step, activation checkpointing"),
        (20, "2 × 4 examples a step, activation checkpointing"),
        (12, "4 × 2 examples a step, activation checkpointing, the base in 4 bits"),
        # Nothing fits, and the estimate may err: what takes least is tried.
        (4, "1 × 8 examples a step, activation checkpointing, the base in 4 bits"),
    ],
)
def test_the_base_is_held_in_four_bits_where_nothing_else_fits(gigabytes: int, chosen: str) -> None:
    first = build_first_attempt(HYPERPARAMETERS, on_cpu=False)
    attempt, why = find_fitting_attempt(first, MemoryRules(), estimate_on_gpu, gigabytes * GB)
    assert str(attempt) == chosen
    assert "GiB are free" in why


def estimate_on_gpu(attempt: Attempt) -> MemoryEstimate:
    load = make_workload(largest_batch=1200 * attempt.micro_batch, most_labels=100 * attempt.micro_batch)
    return estimate_memory(build_llama_8b(), load, HYPERPARAMETERS, attempt, "bfloat16", "cuda")


def test_a_gpu_holds_a_tile_of_the_logits_and_a_cpu_all_of_them() -> None:
    # A batch of 32 long answers: TRL's head never holds the 16,000 logits of 128,256 words.
    on_gpu, on_cpu = (estimate_llama(device, most_labels=16_000).logits for device in ("cuda", "cpu"))
    assert on_gpu == 4096 * 32768 * 2 + 16_000 * 4096 * 4
    assert on_cpu == 16_000 * 128_256 * 4 * 4
    # One short answer fits into the tile.
    assert estimate_llama("cuda", most_labels=10).logits == 10 * 32768 * 2 + 10 * 4096 * 4


def test_four_bits_are_left_out_where_they_must_be() -> None:
    first = build_first_attempt(HYPERPARAMETERS, on_cpu=False)
    attempt, why = find_fitting_attempt(first, MemoryRules(may_quantize=False), estimate_on_gpu, 12 * GB)
    assert str(attempt) == "1 × 8 examples a step, activation checkpointing"
    assert f"about {estimate_on_gpu(attempt).needed / 2**30:.1f} GiB for 1 × 8 examples a step" in why
    assert "nothing takes less" in why


def test_time_is_measured_speed_times_all_tokens() -> None:
    attempt = build_first_attempt(HYPERPARAMETERS, on_cpu=False)
    made = estimate_training(
        make_workload(), HYPERPARAMETERS, attempt, estimate_llama(), tokens_per_second=1000
    )
    assert made.steps == 38 * 3
    assert made.tokens == 180_000
    # 2 validations an epoch and one before, of 6000 tokens in half of the time.
    assert made.seconds == pytest.approx(180 + 7 * 3)


def test_a_training_that_made_no_step_has_no_speed_and_so_no_time() -> None:
    # A killed one may have had nothing left to do but to save.
    speed = ProgressReporter(Progress(Path("progress.jsonl"), lambda: NOON), dict).early_tokens_per_second
    attempt = build_first_attempt(HYPERPARAMETERS, on_cpu=False)
    made = estimate_training(make_workload(), HYPERPARAMETERS, attempt, estimate_llama(), speed)
    assert (made.tokens_per_second, made.seconds, made.tokens) == (None, None, 180_000)


def test_the_shape_of_a_model_is_read_from_its_folder(tiny_model: Path) -> None:
    shape = read_architecture(str(tiny_model))
    assert (shape.layers, shape.hidden, shape.attention, shape.vocabulary) == (2, 128, 128, 49152)
    assert shape.gated
    assert len(shape.linear) == 2 * 7
    assert shape.parameters == pytest.approx(2 * 49152 * 128 + shape.linear_parameters, rel=0.001)


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({}, "hidden_size"),
        (CONFIG | {"hidden_size": None}, "int"),
        (CONFIG | {"intermediate_size": [16, 16]}, "intermediate"),
    ],
)
def test_a_shape_that_cannot_be_told_says_why(config: dict[str, object], what: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    with pytest.raises(BaseModelUnusable, match=what):
        read_architecture(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(BaseModelUnusable):
        read_architecture(str(tmp_path))


def test_weights_that_lie_there_a_second_time_in_another_layout_are_not_counted(tmp_path: Path) -> None:
    # As Mistral's models have them.
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    save_file(
        {f"other.{name}": weight for name, weight in WEIGHTS.items()}, tmp_path / "consolidated.safetensors"
    )
    names = {name: f"model-{number}.safetensors" for number, name in enumerate(WEIGHTS)}
    for name, file in names.items():
        save_file({name: WEIGHTS[name]}, tmp_path / file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    shape = read_architecture(str(tmp_path))
    assert (shape.parameters, shape.linear) == (10 * 8 + 8 * 8, ((8, 8),))
    assert shape.file_bytes == sum((tmp_path / file).stat().st_size for file in names.values())
    assert measure_weight_bytes(str(tmp_path)) == shape.file_bytes
    save_file(WEIGHTS, tmp_path / "model.safetensors")  # the one that transformers reads first
    assert measure_weight_bytes(str(tmp_path)) == (tmp_path / "model.safetensors").stat().st_size
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / names["model.layers.0.self_attn.q_proj.weight"]).unlink()
    with pytest.raises(BaseModelUnusable, match=r"lacks model-1\.safetensors"):
        measure_weight_bytes(str(tmp_path))


def test_what_is_computed_at_once_is_counted_as_batches_hold_it() -> None:
    prompt = list(range(100))
    sft = [{"input_ids": [*prompt, 1000 + n, 7, 8], "labels": [-100] * 101 + [7, 8]} for n in range(16)]
    shared, padded = (
        measure_workload(sft, 0, 8, widths=widths) for widths in (build_llama_8b().widths, None)
    )
    assert (shared.examples, shared.tokens, shared.most_labels) == (16, 16 * 103, 16)
    assert (padded.largest_batch, padded.largest_mask, padded.shared) == (8 * 103, 8 * 103**2, 0)
    assert (shared.largest_batch, shared.largest_mask, shared.shared) == (124, 124**2, 1)
    pairs = [{"prompt_ids": [*prompt, 1000 + n], "chosen_ids": [7, 8], "rejected_ids": [9]} for n in range(8)]
    both = measure_workload(pairs, 0, 4, widths=build_llama_8b().widths)
    assert both.tokens == 8 * (103 + 102)
    # Of each pair: its own prompt token and, in each branch, the token before the answer and the answer.
    assert both.largest_batch == 100 + 4 * (3 + 2)
