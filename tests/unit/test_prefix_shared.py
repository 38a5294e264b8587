"""A shared batch must teach exactly what the padded batch teaches."""

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

from trainers.prefix_shared import collator, is_exact_for, padded_batch, prefix_shared_batch, shared_prefix

SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
CONFIGS = [LlamaConfig(**SHAPE), Qwen2Config(**SHAPE), Qwen3Config(**SHAPE)]


def feature(prompt, completion):
    return {"input_ids": prompt + completion, "labels": [-100] * len(prompt) + completion}


SYSTEM = [1, 5, 9, 12, 7]
FEATURES = [
    feature([*SYSTEM, 20, 21, 3], [30, 2]),
    feature([*SYSTEM, 22, 3], [31, 32, 33, 2]),
    feature([*SYSTEM, 3], [34, 2]),
]


def model_of(config):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def loss_and_gradients(model, batch):
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss.item(), torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_loss_and_gradients_are_those_of_the_padded_batch(config):
    model = model_of(config)
    assert is_exact_for(model) == (True, "")
    padded_loss, padded = loss_and_gradients(model, padded_batch(FEATURES, pad_token_id=0))
    shared_loss, shared = loss_and_gradients(model, prefix_shared_batch(FEATURES, shared_prefix(FEATURES)))
    assert shared_loss == pytest.approx(padded_loss, rel=1e-6)
    assert (shared - padded).norm() / padded.norm() < 1e-5


def test_the_shared_beginning_stands_once_and_ends_before_the_token_that_predicts_a_label():
    identical = [feature(SYSTEM, [30, 2]), feature(SYSTEM, [31, 2])]
    assert shared_prefix(identical) == len(SYSTEM) - 1
    batch = prefix_shared_batch(identical, shared_prefix(identical))
    assert batch["input_ids"].tolist() == [[1, 5, 9, 12, 7, 30, 2, 7, 31, 2]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5, 6, 4, 5, 6]]
    assert batch["labels"].tolist() == [[-100] * 5 + [30, 2, -100, 31, 2]]


def test_examples_with_nothing_in_common_are_padded():
    different = [feature([1, 4], [8]), feature([2, 5], [9])]
    assert shared_prefix(different) == 0
    assert collator(0, share=True)(different)["input_ids"].shape == (2, 3)


def test_a_label_on_the_very_first_token_is_no_label_in_either_batch():
    whole = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}, {"input_ids": [1, 2, 4], "labels": [1, 2, 4]}]
    model = model_of(CONFIGS[0])
    padded_loss, _ = loss_and_gradients(model, padded_batch(whole, pad_token_id=0))
    shared_loss, _ = loss_and_gradients(model, prefix_shared_batch(whole, shared_prefix(whole)))
    assert shared_loss == pytest.approx(padded_loss, rel=1e-6)


@pytest.mark.parametrize(
    ("config", "dropout", "why"),
    [
        (LlamaConfig(**SHAPE), 0.1, "dropout"),
        (
            LlamaConfig(**SHAPE, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}),
            0,
            "dynamic",
        ),
        (
            Qwen2Config(**SHAPE, use_sliding_window=True, max_window_layers=0, sliding_window=4),
            0,
            "sliding window",
        ),
    ],
)
def test_where_it_would_not_be_exact_it_says_why(config, dropout, why):
    exact, reason = is_exact_for(model_of(config), dropout)
    assert not exact
    assert why in reason
