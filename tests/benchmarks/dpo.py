"""Memory of DPO over that of SFT, on the same questions: the reference must not be a second model."""

import tempfile
from pathlib import Path

from daemon.demo.model import prepare_smollm2
from tests.benchmarks.runs import make_system_prompt, run_ours
from trainers.models.base_model import load_tokenizer

MODEL = Path(".cache/smollm2")
PROMPT_TOKENS = 300


def measure() -> float:
    """Measure a DPO process's peak memory over an SFT process's; system prompt of 300 tokens, batch 8."""
    model = prepare_smollm2(MODEL.resolve())
    tokenizer = load_tokenizer(str(model))
    system = make_system_prompt(PROMPT_TOKENS, lambda text: len(tokenizer(text)["input_ids"]))
    with tempfile.TemporaryDirectory() as folder:
        sft, dpo = (run_ours(method, model, Path(folder), system) for method in ("sft", "dpo"))
    return dpo.peak_memory_bytes / sft.peak_memory_bytes
