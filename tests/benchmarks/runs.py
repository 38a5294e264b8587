"""Short trainings of the 135M model on routing questions, each in a child process, with time and memory."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from daemon.demo.corpus import list_labels, load_corpus
from extractors.examples.types import Examples
from extractors.values import Value
from tests.support.snapshots import RoutingCase, make_example, make_pair, make_snapshot
from trainers.job_folder import CHILD_ENV
from trainers.jobs.job import TrainingJob
from trainers.models.base_model import compute_base_digest
from trainers.planning.hyperparameters import Hyperparameters, Method
from trainers.planning.plan import ExampleKind, Plan, TrainingStage

STEPS = 4
BATCH = 8
DATA: dict[Method, ExampleKind] = {"sft": "sft", "dpo": "pairs"}


class TimedRun(Value):
    """Time, losses and memory of a training."""

    seconds: float
    """Time from the end of the first step, which warms up, to the end of the last."""
    losses: tuple[float, ...]
    """Loss of each step."""
    peak_memory_bytes: int


def list_questions() -> tuple[list[RoutingCase], list[str]]:
    """Return the questions that a run learns from, and all destinations."""
    corpus = load_corpus()
    return [(each.text, each.label) for each in corpus[: STEPS * BATCH]], list_labels(corpus)


def make_system_prompt(tokens: int, count: Callable[[str], int]) -> str:
    """Make a system prompt of about `tokens` tokens, as `count` counts them, by repeating destinations."""
    labels = list_questions()[1]
    prompt = "Route to one of:"
    for number in range(tokens):
        if count(prompt) >= tokens:
            break
        prompt += f" {labels[number % len(labels)]},"
    return prompt


def build_hyperparameters() -> Hyperparameters:
    """Return the usual hyperparameters, for one pass over the data."""
    return Hyperparameters(epochs=1, batch_size=BATCH, learning_rate=5e-4)


def run_ours(method: Method, model: Path, folder: Path, system: str) -> TimedRun:
    """Run a training as the daemon does."""
    questions, labels = list_questions()
    examples = Examples(
        sft=tuple(make_example(number, each, system=system) for number, each in enumerate(questions)),
        pairs=tuple(
            make_pair(number, each, labels[labels.index(each[1]) - 1], system=system)
            for number, each in enumerate(questions)
        ),
    )
    snapshot = make_snapshot(folder / "snapshots", examples)
    stage = TrainingStage(method=method, data=DATA[method], hyperparameters=build_hyperparameters())
    plan = Plan(
        stages=(stage,),
        reason="benchmark",
        snapshot_id=snapshot.name,
        base_model=str(model),
        base_digest=compute_base_digest(str(model)),
    )
    run = folder / f"ours-{method}"
    run.mkdir()
    job = TrainingJob(plan=plan, snapshot=str(snapshot), dtype="float32", device="cpu")
    (run / "job.json").write_text(job.model_dump_json(), "utf-8")
    run_child("learnd", "work", "train", str(run))
    metrics = json.loads((run / "result.json").read_text())["metrics"]
    lines = [json.loads(line) for line in (run / "adapter/training.jsonl").read_text().splitlines()]
    ends = [datetime.fromisoformat(line["at"]) for line in lines]
    return TimedRun(
        seconds=(ends[-1] - ends[0]).total_seconds(),
        losses=tuple(line["loss"] for line in lines),
        peak_memory_bytes=metrics["peak_memory_bytes"],
    )


def run_child(module: str, *arguments: str) -> None:
    """Run `python -m MODULE … FOLDER` to its end, in the environment of a training child."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, **CHILD_ENV},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        failure = Path(arguments[-1], "failure.json")
        reason = failure.read_text() if failure.exists() else done.stderr[-3000:]
        sys.exit(f"{module} {' '.join(arguments)} failed:\n{reason}")
