"""Ours against TRL's plain trainer: same data, model, adapter, batch, rate, steps and seed, in float32.

Each side is a process of its own, as in production, on the 135M model. TRL's default recomputes
activations in the backward pass, ours keeps them; `speedup_kept` compares with a TRL that keeps them too,
where that fits into 24 GB.
"""

import tempfile
from pathlib import Path
from typing import Any

from daemon.demo.model import prepare_smollm2
from tests.benchmarks.runs import Run, child, ours, system_prompt_of
from trainers.models.base_model import load_tokenizer

MODEL = Path(".cache/smollm2")
PROMPT_TOKENS = (50, 300, 1000)
MOST_KEPT = 300
"""Longest system prompt at which plain TRL can keep all activations."""


def measure() -> dict[str, dict[str, float]]:
    """By length of the system prompt in tokens: speed-up, gap of the losses, ratio of the memory."""
    model = prepare_smollm2(MODEL.resolve())
    tokenizer = load_tokenizer(str(model))
    return {str(tokens): _compare(model, tokens, tokenizer) for tokens in PROMPT_TOKENS}


def _compare(model: Path, tokens: int, tokenizer: Any) -> dict[str, float]:
    system = system_prompt_of(tokens, lambda text: len(tokenizer(text)["input_ids"]))
    with tempfile.TemporaryDirectory() as folder:
        shared = ours("sft", model, Path(folder), system)
        plain = _plain("some", model, Path(folder), system)
        kept = _plain("all", model, Path(folder), system) if tokens <= MOST_KEPT else None
    found = {
        "speedup": plain.seconds / shared.seconds,
        "loss_gap": max(abs(one - other) for one, other in zip(plain.losses, shared.losses, strict=True)),
        "memory_ratio": shared.peak_memory_bytes / plain.peak_memory_bytes,
        "loss": plain.losses[-1],
        "seconds": shared.seconds,
    }
    if kept:
        found["speedup_kept"] = kept.seconds / shared.seconds
        found["memory_ratio_kept"] = shared.peak_memory_bytes / kept.peak_memory_bytes
    return found


def _plain(keep: str, model: Path, folder: Path, system: str) -> Run:
    prompt, output = folder / "system.txt", folder / f"plain-{keep}"
    prompt.write_text(system, "utf-8")
    output.mkdir()
    child("tests.benchmarks.plain_trl", keep, str(model), str(prompt), str(output))
    return Run.model_validate_json((output / "run.json").read_text("utf-8"))
