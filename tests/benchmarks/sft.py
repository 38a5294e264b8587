"""Ours against TRL's plain trainer: same data, model, adapter, batch, rate, steps and seed, in float32.

Each side is a process of its own, as in production, on the 135M model. TRL's default recomputes
activations in the backward pass, ours keeps them; `speedup_kept` compares with a TRL that keeps them too,
where that fits into 24 GB.
"""

import tempfile
from pathlib import Path
from typing import Any

from daemon.demo.model import prepare_smollm2
from tests.benchmarks.runs import TimedRun, make_system_prompt, run_child, run_ours
from trainers.models.base_model import load_tokenizer

MODEL = Path(".cache/smollm2")
PROMPT_TOKENS = (50, 300, 1000)
MOST_KEPT = 300
"""Longest system prompt at which plain TRL can keep all activations."""


def measure() -> dict[str, dict[str, float]]:
    """Measure speed-up, gap of the losses and ratio of the memory, by tokens of the system prompt."""
    model = prepare_smollm2(MODEL.resolve())
    tokenizer = load_tokenizer(str(model))
    return {str(tokens): _compare(model, tokens, tokenizer) for tokens in PROMPT_TOKENS}


def _compare(model: Path, tokens: int, tokenizer: Any) -> dict[str, float]:
    system = make_system_prompt(tokens, lambda text: len(tokenizer(text)["input_ids"]))
    with tempfile.TemporaryDirectory() as folder:
        shared = run_ours("sft", model, Path(folder), system)
        plain = _run_plain("some", model, Path(folder), system)
        kept = _run_plain("all", model, Path(folder), system) if tokens <= MOST_KEPT else None
    figures = {
        "speedup": plain.seconds / shared.seconds,
        "loss_gap": max(abs(one - other) for one, other in zip(plain.losses, shared.losses, strict=True)),
        "memory_ratio": shared.peak_memory_bytes / plain.peak_memory_bytes,
        "loss": plain.losses[-1],
        "seconds": shared.seconds,
    }
    if kept:
        figures["speedup_kept"] = kept.seconds / shared.seconds
        figures["memory_ratio_kept"] = shared.peak_memory_bytes / kept.peak_memory_bytes
    return figures


def _run_plain(keep: str, model: Path, folder: Path, system: str) -> TimedRun:
    prompt, output = folder / "system.txt", folder / f"plain-{keep}"
    prompt.write_text(system, "utf-8")
    output.mkdir()
    run_child("tests.benchmarks.plain_trl", keep, str(model), str(prompt), str(output))
    return TimedRun.model_validate_json((output / "run.json").read_text("utf-8"))
