"""Ours against TRL's plain trainer: same data, model, adapter, batch, rate, steps and seed, in float32.

Each side is a process of its own, as in production, on the 135M model.
"""

import tempfile
from pathlib import Path

from daemon.demo.model import prepare_smollm2
from tests.benchmarks.runs import Run, child, ours, system_prompt_of
from trainers.base_model import load_tokenizer

MODEL = Path(".cache/smollm2")
PROMPT_TOKENS = (50, 300, 1000)


def measure() -> dict[str, dict[str, float]]:
    """By length of the system prompt in tokens: speed-up, gap of the losses, ratio of the memory."""
    model = prepare_smollm2(MODEL.resolve())
    tokenizer = load_tokenizer(str(model))
    return {
        str(tokens): _compare(model, system_prompt_of(tokens, lambda text: len(tokenizer(text)["input_ids"])))
        for tokens in PROMPT_TOKENS
    }


def _compare(model: Path, system: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        shared = ours("sft", model, Path(folder), system)
        plain = _plain(model, Path(folder), system)
    return {
        "speedup": plain.seconds / shared.seconds,
        "loss_gap": max(abs(one - other) for one, other in zip(plain.losses, shared.losses, strict=True)),
        "memory_ratio": shared.peak_memory_bytes / plain.peak_memory_bytes,
        "plain_seconds": plain.seconds,
        "loss": plain.losses[-1],
    }


def _plain(model: Path, folder: Path, system: str) -> Run:
    prompt, output = folder / "system.txt", folder / "plain"
    prompt.write_text(system, "utf-8")
    output.mkdir()
    child("tests.benchmarks.plain_trl", str(model), str(prompt), str(output))
    return Run.model_validate_json((output / "run.json").read_text("utf-8"))
