"""Memory of DPO over that of SFT, on the same questions: the reference must not be a second model."""

import tempfile
from pathlib import Path

from daemon.demo.model import prepare_smollm2
from tests.benchmarks.runs import ours, system_prompt_of
from trainers.models.base_model import load_tokenizer

MODEL = Path(".cache/smollm2")
PROMPT_TOKENS = 300


def measure() -> float:
    """Peak memory of a DPO process over that of an SFT process; a system prompt of 300 tokens, batch 8."""
    model = prepare_smollm2(MODEL.resolve())
    tokenizer = load_tokenizer(str(model))
    system = system_prompt_of(PROMPT_TOKENS, lambda text: len(tokenizer(text)["input_ids"]))
    with tempfile.TemporaryDirectory() as folder:
        sft, dpo = (ours(method, model, Path(folder), system) for method in ("sft", "dpo"))
    return dpo.peak_memory_bytes / sft.peak_memory_bytes
