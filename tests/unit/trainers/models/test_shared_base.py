"""A base that several trainings use in turn: each finds it as the first one did."""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from trl.trainer.utils import disable_dropout_in_model

from extractors.values import file_digest
from tests.e2e.test_training import make_examples, make_plan
from tests.support.snapshots import make_snapshot
from tests.support.tiny_model import tokenizer_folder
from trainers.job_folder import Progress
from trainers.jobs.job import TrainingJob
from trainers.jobs.language_model import train_language_model_leg
from trainers.jobs.legs import Leg
from trainers.models.base_model import load_model
from trainers.models.lora import build_lora_config
from trainers.models.shared_base import borrow_base
from trainers.planning.hyperparameters import Hyperparameters, Method
from trainers.planning.plan import ExampleKind

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning"),
]
DROPOUT = 0.3


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-2 of one layer, whose dropout modules are its own."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("gpt2")
    shutil.copytree(tokenizer_folder(), folder, dirs_exist_ok=True)
    torch.manual_seed(0)
    sizes = {"vocab_size": 49152, "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 512}
    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), DROPOUT)
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    GPT2LMHeadModel(GPT2Config(**sizes, **rates, **tokens)).save_pretrained(folder)
    return folder


def load(gpt2: Path) -> Any:
    return load_model(str(gpt2), device="cpu", dtype="float32")


def train(base: Any, gpt2: Path, snapshot: Path, folder: Path, *stage: tuple[Method, ExampleKind]) -> str:
    """Train one stage on the loaded `base`; return the adapter's digest."""
    folder.mkdir()
    plan = make_plan(gpt2, snapshot, *stage, epochs=1)
    job = TrainingJob(plan=plan, snapshot=str(snapshot), device="cpu", dtype="float32")
    progress = Progress(folder / "progress.jsonl", lambda: datetime.now(UTC))
    train_language_model_leg(job, Leg(number=1, is_last=True), folder, progress, base)
    return file_digest(folder / "adapter/adapter_model.safetensors")


def test_an_sft_after_a_dpo_gives_the_bytes_that_it_gives_alone(gpt2: Path, tmp_path: Path) -> None:
    snapshot = make_snapshot(tmp_path / "snapshots", make_examples(range(8)), make_examples(range(8, 12)))
    base = load(gpt2)
    train(base, gpt2, snapshot, tmp_path / "dpo", ("dpo", "pairs"))
    after = train(base, gpt2, snapshot, tmp_path / "sft", ("sft", "sft"))
    assert after == train(load(gpt2), gpt2, snapshot, tmp_path / "alone", ("sft", "sft"))


def test_a_base_is_given_back_with_its_dropout_and_without_hooks_of_checkpointing(gpt2: Path) -> None:
    base, tokens = load(gpt2).train(), torch.tensor([[1, 2, 3]])
    with borrow_base(base):
        adapted = get_peft_model(base, build_lora_config(base, Hyperparameters(), str(gpt2)))
        adapted.enable_input_require_grads()  # by TRL
        adapted.activation_checkpointing_enable()
        disable_dropout_in_model(adapted)
        assert adapted.get_input_embeddings()(tokens).requires_grad
    assert not base.get_input_embeddings()(tokens).requires_grad
    assert not base.is_activation_checkpointing
    assert {layer.p for layer in base.modules() if isinstance(layer, torch.nn.Dropout)} == {DROPOUT}
