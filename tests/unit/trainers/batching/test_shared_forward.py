"""A shared forward pass gives exactly the gradients of TRL's own, unmodified trainer on padded rows."""

import copy
import warnings

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from tests.support.tiny_model import tokenizer_folder
from trainers.batching.shared_forward import find_inexactness, measure_widths, share_prefixes
from trainers.estimate.architecture import read_architecture
from trainers.methods.dpo_kto import build_dpo_trainer, build_kto_trainer
from trainers.methods.sft import build_sft_trainer
from trainers.models.lora import build_lora_config, check_lora, save_adapter
from trainers.planning.hyperparameters import Hyperparameters

# TRL's own calls of transformers, which a training child prints into its log.
pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")
SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
}
WINDOW = {"sliding_window": 4}
"""Shorter than the rows' beginnings, so that it matters."""
CONFIGS = {
    "llama": LlamaConfig(**SHAPE),
    "mistral": MistralConfig(**SHAPE, **WINDOW),
    "qwen2": Qwen2Config(**SHAPE),
    "qwen2-sliding": Qwen2Config(**SHAPE, **WINDOW, use_sliding_window=True, max_window_layers=1),
    "qwen3": Qwen3Config(**SHAPE),
    "gemma": GemmaConfig(**SHAPE),
    "gemma2": Gemma2Config(**SHAPE, **WINDOW, query_pre_attn_scalar=8),
    "gemma3": Gemma3TextConfig(
        **SHAPE, **WINDOW, query_pre_attn_scalar=8, layer_types=["sliding_attention", "full_attention"]
    ),
}
SYSTEM = [1, 5, 9, 12, 7]
PROMPTS = [[*SYSTEM, 20, 21, 3], [*SYSTEM, 22, 3], [*SYSTEM, 3], [*SYSTEM, 20, 22, 3]]
GOOD, BAD = [[30, 2], [31, 32, 33, 2], [34, 2], [30, 2]], [[31, 2], [31, 33, 2], [35, 36, 2], [34, 2]]


def make_row(prompt, completion):
    return {"input_ids": prompt + completion, "labels": [-100] * len(prompt) + completion}


CONVERSATION = {
    "input_ids": [*SYSTEM, 20, 3, 30, 2, 22, 3, 31, 2],
    "labels": [-100] * 7 + [30, 2] + [-100] * 2 + [31, 2],
}
DATA = {
    "sft": [*map(make_row, PROMPTS, GOOD), CONVERSATION],
    "dpo": [
        {"prompt_ids": prompt, "chosen_ids": good, "rejected_ids": bad}
        for prompt, good, bad in zip(PROMPTS, GOOD, BAD, strict=True)
    ],
    "kto": [
        {"prompt_ids": prompt, "completion_ids": said, "KL_completion_ids": other, "label": number % 2 == 0}
        for number, (prompt, said, other) in enumerate(zip(PROMPTS, GOOD, BAD, strict=True))
    ],
}
HOW = {
    "shared": {"share": True, "tiled": False},
    "shared, as on a GPU": {"share": True, "tiled": True},
    "padded": {"share": False, "tiled": False},
}
TRAINERS = {"sft": build_sft_trainer, "dpo": build_dpo_trainer, "kto": build_kto_trainer}


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(tokenizer_folder(), pad_token="<|endoftext|>")


def build_model(config):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=torch.float32)


def build_trainer(method, config, tokenizer, folder, rows=None, trained=None):
    """Build TRL's trainer of a tiny model, or of `trained`, whose adapter already has an effect."""
    arguments = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "use_cpu": True,
        "bf16": False,
        "activation_checkpointing": False,
        "report_to": "none",
    }
    trainer = TRAINERS[method](
        arguments,
        Hyperparameters(batch_size=4),
        model=trained or build_model(config),
        peft_config=None if trained else LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
        train_dataset=Dataset.from_list(rows or DATA[method]),
        processing_class=tokenizer,
    )
    torch.manual_seed(1)
    for name, parameter in trainer.model.named_parameters():
        if "lora_B.default" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return trainer


def collate(trainer, rows):
    return trainer.data_collator([dict(each) for each in rows])


def compute_loss_and_gradients(trainer, rows):
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, collate(trainer, rows))
    loss.backward()
    gradients = [each.grad.flatten() for each in trainer.model.parameters() if each.grad is not None]
    return (
        loss.item(),
        torch.cat(gradients),
        {name: values[-1] for name, values in trainer._metrics["train"].items()},
    )


def count_tokens(trainer, rows):
    """Count the tokens that the model's embedding looks up for a step."""
    seen = []
    embedding = trainer.model.get_input_embeddings()
    handle = embedding.register_forward_hook(lambda _, args, __: seen.append(args[0].numel()))
    compute_loss_and_gradients(trainer, rows)
    handle.remove()
    return sum(seen)


@pytest.mark.parametrize("method", DATA)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
def test_loss_gradients_and_figures_are_those_of_trl(method, config, how, tokenizer, tmp_path):
    trainer = build_trainer(method, config, tokenizer, tmp_path)
    base = trainer.model.get_base_model()
    assert find_inexactness(base) is None
    rows = DATA[method]
    computed = count_tokens(trainer, rows)
    loss, gradients, figures = compute_loss_and_gradients(trainer, rows)
    share_prefixes(base, **how)
    our_loss, ours, our_figures = compute_loss_and_gradients(trainer, rows)
    assert our_loss == pytest.approx(loss, rel=1e-5)
    assert (ours - gradients).norm() / gradients.norm() < 1e-5
    assert our_figures == pytest.approx(
        figures | {"num_tokens": our_figures["num_tokens"]}, rel=1e-4, abs=1e-5
    )
    if how["share"]:
        assert count_tokens(trainer, rows) < 0.75 * computed


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_a_second_stage_is_held_to_a_frozen_copy_of_its_adapter_exactly(method, tokenizer, tmp_path):
    base = str(tmp_path / "base")
    CONFIGS["llama"].save_pretrained(base)
    model = build_model(CONFIGS["llama"])
    config = build_lora_config(model, Hyperparameters(lora_rank=4, lora_alpha=4), base)
    trained = check_lora(get_peft_model(model, config), base)
    torch.manual_seed(2)
    for name, parameter in trained.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    trainer = build_trainer(method, CONFIGS["llama"], tokenizer, tmp_path, trained=trained)
    assert trainer.ref_model is None
    assert sorted(trainer.model.peft_config) == ["default", "ref"]
    assert check_lora(trainer.model, base) is trainer.model
    loss, gradients, _ = compute_loss_and_gradients(trainer, DATA[method])
    share_prefixes(trainer.model.get_base_model())
    our_loss, ours, _ = compute_loss_and_gradients(trainer, DATA[method])
    assert our_loss == pytest.approx(loss, rel=1e-5)
    assert (ours - gradients).norm() / gradients.norm() < 1e-5
    files = save_adapter(trainer.model, tmp_path / "saved")
    assert sorted(files) == sorted(path.name for path in (tmp_path / "saved").iterdir())


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_it_is_exact_with_either_attention(attention, tokenizer, tmp_path):
    config = copy.deepcopy(CONFIGS["llama"])
    config._attn_implementation = attention
    trainer = build_trainer("sft", config, tokenizer, tmp_path)
    base = trainer.model.get_base_model()
    assert base.config._attn_implementation == attention
    loss, gradients, _ = compute_loss_and_gradients(trainer, DATA["sft"])
    share_prefixes(base)
    our_loss, ours, _ = compute_loss_and_gradients(trainer, DATA["sft"])
    assert our_loss == pytest.approx(loss, rel=1e-5)
    assert (ours - gradients).norm() / gradients.norm() < 1e-5


@pytest.mark.parametrize(
    "rows",
    [
        [make_row([1, 4], [8, 2]), make_row([2, 5, 6], [9, 2])],
        [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}, {"input_ids": [1, 2, 4], "labels": [1, 2, 4]}],
        [make_row(SYSTEM, [30, 2])] * 4,
        [make_row(SYSTEM, [30, 2]), {"input_ids": [*SYSTEM, 4], "labels": [-100] * 6}],
    ],
    ids=["nothing in common", "a label on the first token", "all the same", "one that teaches nothing"],
)
def test_odd_batches_are_exact_too(rows, tokenizer, tmp_path):
    trainer = build_trainer("sft", CONFIGS["llama"], tokenizer, tmp_path, rows)
    loss, gradients, _ = compute_loss_and_gradients(trainer, rows)
    share_prefixes(trainer.model.get_base_model())
    our_loss, ours, _ = compute_loss_and_gradients(trainer, rows)
    assert our_loss == pytest.approx(loss, rel=1e-5)
    assert (ours - gradients).norm() / gradients.norm() < 1e-5


def test_rows_with_nothing_in_common_are_not_packed_and_counted(tokenizer, tmp_path):
    rows = [make_row([1, 4], [8, 2]), make_row([2, 5], [9, 2])]
    trainer = build_trainer("sft", CONFIGS["llama"], tokenizer, tmp_path, rows)
    computed = count_tokens(trainer, rows)
    sharing = share_prefixes(trainer.model.get_base_model())
    assert count_tokens(trainer, rows) == computed
    assert (sharing.packed, sharing.padded) == (0, 1)
    compute_loss_and_gradients(trainer, DATA["sft"])
    assert (sharing.packed, sharing.padded) == (1, 1)
    with torch.no_grad():
        trainer.compute_loss(trainer.model, collate(trainer, DATA["sft"]))
    assert (sharing.packed, sharing.padded) == (1, 1)  # as a validation computes it


def test_the_padded_rows_of_a_cpu_have_logits_for_their_labels_alone(tokenizer, tmp_path):
    # Answers of two tokens, each beginning at another place.
    rows = [make_row([10 + number] * (3 * number + 2), [30, 2]) for number in range(6)]
    trainer = build_trainer("sft", CONFIGS["llama"], tokenizer, tmp_path, rows)
    base, seen = trainer.model.get_base_model(), []
    loss, gradients, _ = compute_loss_and_gradients(trainer, rows)
    share_prefixes(base, share=False)
    base.lm_head.register_forward_hook(lambda _, __, logits: seen.append(logits.shape[:-1].numel()))
    our_loss, ours, _ = compute_loss_and_gradients(trainer, rows)
    assert seen == [6 * 2]
    assert our_loss == pytest.approx(loss, rel=1e-5)
    assert (ours - gradients).norm() / gradients.norm() < 1e-5


def test_the_sizes_of_a_model_are_the_same_measured_on_it_and_read_from_its_folder(tiny_model):
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    shape = read_architecture(str(tiny_model)).widths
    assert measure_widths(model) == shape
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert measure_widths(adapted.get_base_model()) == shape


def test_the_model_still_answers_as_before(tokenizer, tmp_path):
    trainer = build_trainer("sft", CONFIGS["llama"], tokenizer, tmp_path)
    ids = torch.tensor([[*SYSTEM, 20]])
    before = trainer.model(input_ids=ids).logits
    share_prefixes(trainer.model.get_base_model())
    assert torch.equal(trainer.model(input_ids=ids).logits, before)


@pytest.mark.parametrize(
    ("config", "dropout", "why"),
    [
        (LlamaConfig(**SHAPE), 0.1, "dropout"),
        (LlamaConfig(**SHAPE, attention_dropout=0.1), 0, "dropout"),
        (
            LlamaConfig(**SHAPE, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}),
            0,
            "dynamic",
        ),
        (LlamaConfig(**SHAPE, attn_implementation="flex_attention"), 0, "flex_attention"),
        (Gemma3TextConfig(**SHAPE, use_bidirectional_attention=True), 0, "follow"),
    ],
)
def test_where_it_would_not_be_exact_it_says_why(config, dropout, why):
    with warnings.catch_warnings(action="ignore"):
        model = build_model(config)
    reason = find_inexactness(model, dropout)
    assert reason is not None
    assert why in reason
