"""Prefix-shared batches against the padded batches of the same trainer: same data, seed and steps.

Each side is a training child of its own, as in production, on the 135M model.
"""

import json
import os
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from daemon.demo.corpus import labels_of, load_corpus
from daemon.demo.model import prepare_smollm2
from tests.snapshots import reviewed, snapshot_in
from trainers.base_model import base_digest
from trainers.child import CHILD_ENV
from trainers.plan import Hyperparameters, Plan
from trainers.sft import TrainingJob

MODEL = Path(".cache/smollm2")
STEPS = 4
BATCH = 8
PROMPT_TOKENS = (50, 300)


def measure() -> dict[str, dict[str, float]]:
    """By length of the system prompt in tokens: speed-up, gap of the losses, ratio of the memory."""
    model = prepare_smollm2(MODEL.resolve())
    return {str(length): _compare(model, length) for length in PROMPT_TOKENS}


def _compare(model: Path, length: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        snapshot = _snapshot(Path(folder), length)
        shared, padded = (_train(Path(folder), model, snapshot, shared=each) for each in (True, False))
    return {
        "speedup": padded["seconds"] / shared["seconds"],
        "loss_gap": abs(padded["train_loss"] - shared["train_loss"]),
        "memory_ratio": shared["peak_memory_bytes"] / padded["peak_memory_bytes"],
    }


def _snapshot(folder: Path, length: int) -> Path:
    corpus = load_corpus()[: STEPS * BATCH]
    # A word of the destinations' list is about two tokens.
    words = " ".join(labels_of(load_corpus()) * (length // 20 + 1)).split()
    system = f"Route to one of: {', '.join(words[: length // 2])}."
    items = [reviewed(n, (each.text, each.label), system=system) for n, each in enumerate(corpus)]
    return snapshot_in(folder / "snapshots", items)


def _train(folder: Path, model: Path, snapshot: Path, *, shared: bool) -> dict[str, Any]:
    """Metrics of a training; `seconds` are those of the steps alone, without loading the model."""
    plan = Plan(
        method="sft",
        reason="benchmark",
        snapshot_id=snapshot.name,
        base_model=str(model),
        base_digest=base_digest(str(model)),
        hyperparameters=Hyperparameters(epochs=1, batch_size=BATCH),
        prefix_shared=shared,
    )
    job = folder / f"shared-{shared}"
    job.mkdir()
    (job / "job.json").write_text(TrainingJob(plan=plan, snapshot=str(snapshot)).model_dump_json())
    command = [sys.executable, "-m", "learnd", "work", "train", str(job)]
    subprocess.run(command, env={**os.environ, **CHILD_ENV}, capture_output=True, check=True)
    metrics: dict[str, Any] = json.loads((job / "result.json").read_text())["metrics"]
    return metrics | {"seconds": _training_seconds(job / "progress.jsonl")}


def _training_seconds(progress: Path) -> float:
    """From the end of the first step, which warms up, to the end of the last."""
    lines = [json.loads(line) for line in progress.read_text().splitlines()]
    steps = [datetime.fromisoformat(line["at"]) for line in lines if line["stage"] == "training"]
    return (steps[-1] - steps[0]).total_seconds()
